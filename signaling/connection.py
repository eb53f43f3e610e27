"""One peer's connection: the handshake, then requests one after the other, read no faster than allowed."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from typing import Any

import msgspec
import structlog
from websockets.asyncio.connection import broadcast
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

from protocol.errors import ProtocolError
from protocol.identity import short
from protocol.signaling import (
    BLOB_PART_BYTES,
    MAX_FRAME_BYTES,
    VERSION,
    Authenticate,
    BlobPart,
    BlobProgress,
    BlobSlice,
    Challenge,
    Error,
    GetBlob,
    GetPlan,
    GetRun,
    ListPlans,
    ListRuns,
    Log,
    Message,
    OpenRun,
    PublishPlan,
    check_authenticate,
    codes,
    decode_blob_part,
    decode_from_peer,
    encode_message,
    sign_welcome,
)
from protocol.signaling.rounds import GoneReason
from signaling.blobs import Upload
from signaling.catalog import CatalogRequest, answer, blob_parts
from signaling.engine import Engine
from signaling.errors import RefusedError, SignalingError
from signaling.limits import TokenBucket

__all__ = ["Connection", "serve_connection"]

POLICY_VIOLATION = 1008
_log = structlog.get_logger("signaling")


async def serve_connection(engine: Engine, socket: ServerConnection) -> None:
    """Handle one websocket from its opening to its end."""
    try:
        peer = await _authenticate(engine, socket)
    except (ProtocolError, RefusedError) as error:
        engine.metrics.errors.labels(error.code).inc()
        _log.info("handshake refused", address=str(socket.remote_address), code=error.code, reason=str(error))
        await _close(socket, error.code, str(error))
        return
    except ConnectionClosed:
        return
    connection = Connection(engine, socket, peer)
    engine.connected(peer, connection)
    _log.debug("connected", peer=short(peer))
    reason: GoneReason = "lost"
    try:
        await connection.serve()
    except ConnectionClosedOK:
        reason = "left"
    except ConnectionClosed:
        pass
    except (SignalingError, OSError, sqlite3.Error) as error:
        _log.exception("fault", peer=short(peer), reason=str(error))
        await _close(socket, codes.INTERNAL, "a fault of this signaling server; its log says more")
    finally:
        engine.disconnected(peer, connection, reason)
        await connection.finish()
        _log.debug("disconnected", peer=short(peer), reason=reason)


async def _authenticate(engine: Engine, socket: ServerConnection) -> str:
    challenge = Challenge(
        versions=(VERSION,),
        nonce=secrets.token_bytes(32),
        server=engine.identity.peer_id,
        name=engine.config.name,
    )
    await socket.send(encode_message(challenge))
    try:
        async with asyncio.timeout(engine.config.timing.authenticate_s):
            frame = await socket.recv()
    except TimeoutError:
        raise RefusedError(
            codes.NOT_AUTHENTICATED, f"no answer to the challenge within {engine.config.timing.authenticate_s:g} s"
        ) from None
    reply = decode_from_peer(frame) if isinstance(frame, str) else None
    if not isinstance(reply, Authenticate):
        raise RefusedError(
            codes.NOT_AUTHENTICATED,
            f"expected authenticate, got {type(reply).__name__ if reply else 'a binary frame'}",
        )
    if reply.version != VERSION:
        raise RefusedError(
            codes.VERSION_MISMATCH, f"the peer speaks version {reply.version}, this signaling server {VERSION}"
        )
    audiences = engine.config.audiences
    if audiences and reply.audience not in audiences:
        raise RefusedError(
            codes.WRONG_AUDIENCE,
            f"the peer dialled {reply.audience!r}, this signaling server is {', '.join(audiences)}",
        )
    check_authenticate(challenge, reply)
    # Only now may the peer send large messages.
    socket.protocol.max_message_size = MAX_FRAME_BYTES
    await socket.send(encode_message(sign_welcome(engine.identity, challenge, reply)))
    return reply.peer


async def _close(socket: ServerConnection, code: str, message: str) -> None:
    try:
        await socket.send(encode_message(Error(code=code, message=message[:2048])))
    except ConnectionClosed:
        return
    await socket.close(POLICY_VIOLATION, code)


class Connection:
    """An authenticated connection; the engine's `Link`."""

    def __init__(self, engine: Engine, socket: ServerConnection, peer: str) -> None:
        self._engine = engine
        self._socket = socket
        self._peer = peer
        self._uploads: dict[str, Upload] = {}
        self._closing: asyncio.Task[None] | None = None
        limits = engine.config.limits
        self._bucket = TokenBucket(
            per_s=limits.messages_per_s, burst=limits.message_burst, now=asyncio.get_running_loop().time()
        )

    def push(self, text: str) -> None:
        """Hand a text frame to the transport; drop the connection where its peer reads too slowly."""
        broadcast([self._socket], text)
        waiting = self._socket.transport.get_write_buffer_size()
        if waiting > self._engine.config.limits.pending_bytes:
            self._engine.metrics.dropped.labels("slow").inc()
            _log.warning("dropped", peer=short(self._peer), reason="reads too slowly", waiting_bytes=waiting)
            self._socket.transport.abort()

    def replace(self) -> None:
        """Close this connection because the same peer has opened another."""
        self._closing = asyncio.get_running_loop().create_task(
            _close(self._socket, codes.REPLACED, f"{short(self._peer)} has connected again")
        )

    async def serve(self) -> None:
        """Read and act until the connection ends.

        Raises:
            ConnectionClosed: how it ended.
        """
        while True:
            frame = await self._socket.recv()
            await self._throttle()
            try:
                if isinstance(frame, str):
                    await self._on_text(frame)
                else:
                    await self._on_part(decode_blob_part(frame))
            except RefusedError as error:
                self._engine.refuse(self._peer, None, error)
            except ProtocolError as error:
                await self._on_malformed(frame, error)

    async def finish(self) -> None:
        """Keep partial uploads for later, and let a closing handshake end."""
        for upload in self._uploads.values():
            await self._engine.in_thread(upload.close)
        self._uploads.clear()
        if self._closing is not None:
            await self._closing

    async def _on_text(self, text: str) -> None:
        message: Any = decode_from_peer(text)
        self._engine.metrics.messages.labels(message.__struct_config__.tag).inc()
        match message:
            case Authenticate():
                raise RefusedError(codes.REFUSED, f"{short(self._peer)} is authenticated already")
            case PublishPlan() | GetPlan() | GetBlob() | ListPlans() | OpenRun() | GetRun() | ListRuns() | Log():
                await self._from_catalog(message)
            case _:
                self._engine.perform(self._peer, message)

    async def _from_catalog(self, request: CatalogRequest) -> None:
        try:
            reply: Message = await answer(self._engine, self._peer, request)
        except RefusedError as error:
            self._engine.refuse(self._peer, request.id, error)
            return
        await self._socket.send(encode_message(reply))
        if isinstance(reply, BlobSlice):
            async for part in blob_parts(self._engine, reply):
                await self._socket.send(part)

    async def _on_part(self, part: BlobPart) -> None:
        self._engine.metrics.messages.labels("blob_part").inc()
        upload = self._uploads.get(part.digest) or await self._begin_upload(part.digest)
        self._engine.metrics.blob_in.inc(len(part.data))
        try:
            complete = await self._engine.in_thread(lambda: upload.append(part.offset, part.data))
        except RefusedError:
            del self._uploads[part.digest]
            await self._engine.in_thread(upload.close)
            raise
        if complete:
            del self._uploads[part.digest]
            await self._engine.in_thread(upload.close)
            await self._engine.in_store(lambda store: store.add_blob(part.digest, upload.size))
        await self._socket.send(
            encode_message(BlobProgress(digest=part.digest, offset=upload.offset, size=upload.size))
        )

    async def _begin_upload(self, digest: str) -> Upload:
        size = await self._engine.in_store(lambda store: store.wanted_blob(digest, self._peer))
        if size is None:
            raise RefusedError(codes.UNKNOWN_BLOB, f"blob {short(digest)}: no plan of {short(self._peer)} lacks it")
        for other in list(self._uploads):  # one at a time: bounded files and memory
            await self._engine.in_thread(self._uploads.pop(other).close)
        upload = await self._engine.in_thread(lambda: self._engine.blobs.upload(digest, self._peer, size))
        self._uploads[digest] = upload
        # What was there was read and hashed again; whoever changes between uploads pays for it as if it were sent.
        for _ in range(upload.offset // BLOB_PART_BYTES):
            await self._throttle()
        return upload

    async def _throttle(self) -> None:
        wait_s = self._bucket.take(asyncio.get_running_loop().time())
        if wait_s > 0:
            await asyncio.sleep(wait_s)  # unread messages fill the peer's own buffers

    async def _on_malformed(self, frame: str | bytes, error: ProtocolError) -> None:
        """Answer what can be answered; a message without an id ends the connection."""
        request_id = _id_of(frame)
        if request_id is not None:
            self._engine.refuse(self._peer, request_id, RefusedError(error.code, str(error)))
            return
        self._engine.metrics.errors.labels(error.code).inc()
        _log.info("malformed", peer=short(self._peer), code=error.code, reason=str(error))
        await _close(self._socket, error.code, str(error))


class _Id(msgspec.Struct):
    id: int


def _id_of(frame: str | bytes) -> int | None:
    if not isinstance(frame, str):
        return None
    try:
        found = msgspec.json.decode(frame, type=_Id).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if 0 < found < 1 << 53 else None
