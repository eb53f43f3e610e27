"""Models between peers: serving the ones this node holds, fetching one and checking its digest (spec 06 §5)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from protocol.encoding import parse_hex
from protocol.errors import LimitExceededError, LinkError, ProtocolError
from protocol.identity import PeerId, short
from protocol.link import MessageKind
from protocol.model_transfer import (
    PART_BYTES,
    ModelHeader,
    ModelMessage,
    ModelPart,
    ModelRefusal,
    ModelRequest,
    decode,
    encode,
)
from python_node.mesh import Mesh

__all__ = ["ModelExchange"]

_log = structlog.get_logger("node")

_MAX_SERVING = 4
_SLOWEST_BYTES_PER_S = 4096
"""A holder or a fetcher that is slower than this, over one timeout, keeps its place from others and loses it."""
_PART_TIMEOUT_S = PART_BYTES / _SLOWEST_BYTES_PER_S


@dataclass
class _Fetching:
    """One model on its way: filled in order."""

    run: bytes
    digest: bytes
    buffer: bytearray
    done: asyncio.Future[bytes]
    progress: Callable[[int, int], None]
    started: bool = False
    filled: int = 0


class ModelExchange:
    """Serves and fetches models over one mesh; at most one fetch from a peer at a time.

    Args:
        mesh: the links.
        lookup: gives the bytes of a model this node holds, by run id, round and digest; called in a thread.
        may_fetch: whether a peer may have models of a run; the owner's policy.
    """

    def __init__(
        self,
        mesh: Mesh,
        *,
        lookup: Callable[[str, int, str], bytes | None],
        may_fetch: Callable[[PeerId, str], bool],
    ) -> None:
        self._mesh = mesh
        self._lookup = lookup
        self._may_fetch = may_fetch
        self._fetching: dict[PeerId, _Fetching] = {}
        self._serving: dict[PeerId, asyncio.Task[None]] = {}

    async def fetch(
        self,
        peer: PeerId,
        *,
        run: str,
        round_number: int,
        digest: str,
        total: int,
        timeout_s: float,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> bytes:
        """The bytes of a model from a linked peer, checked against `digest`; `progress(done, total)` in bytes.

        Raises:
            LinkError: no link, a refusal, wrong bytes, or or less than 4 KiB/s over `timeout_s`.
        """
        if peer in self._fetching:
            raise LinkError(f"a model from {short(peer)} is already on its way")
        item = _Fetching(
            run=parse_hex(run, what="run id"),
            digest=parse_hex(digest, what="model digest"),
            buffer=bytearray(total),
            done=asyncio.get_running_loop().create_future(),
            progress=progress,
        )
        self._fetching[peer] = item
        try:
            self._mesh.send(peer, MessageKind.MODEL, encode(ModelRequest(item.run, round_number, item.digest)))
            before, due = 0, 0.0  # the first bytes may take twice as long: they come from the holder's disk
            while not item.done.done():
                await asyncio.wait({item.done}, timeout=timeout_s)
                came = item.filled - before
                if not item.done.done() and came < due:
                    raise LinkError(f"model {short(digest)} from {short(peer)}: {came} bytes in {timeout_s:g} s")
                before, due = item.filled, _SLOWEST_BYTES_PER_S * timeout_s
            data = item.done.result()
        finally:
            del self._fetching[peer]
        got = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
        if got != digest:
            raise LinkError(f"model from {short(peer)} has digest {short(got)}, the run's log says {short(digest)}")
        return data

    def receive(self, peer: PeerId, payload: bytes | bytearray | memoryview) -> None:
        """A model message came from a peer.

        Raises:
            ProtocolError: it does not parse, or is no answer to what was asked.
        """
        message = decode(bytes(payload))
        if isinstance(message, ModelRequest):
            self._serve(peer, message)
        else:
            self._take(peer, message)

    def link_down(self, peer: PeerId, reason: str) -> None:
        """The link to a peer is gone: what it was sending will not come."""
        item = self._fetching.get(peer)
        if item is not None and not item.done.done():
            item.done.set_exception(LinkError(f"link to {short(peer)} went while it sent a model: {reason}"))

    async def close(self) -> None:
        """Stop serving."""
        for task in list(self._serving.values()):
            task.cancel()
        await asyncio.gather(*self._serving.values(), return_exceptions=True)

    def _take(self, peer: PeerId, message: ModelMessage) -> None:
        item = self._fetching.get(peer)
        if item is None or item.done.done() or message.run != item.run:
            raise ProtocolError(f"{short(peer)} sent a model that nobody asked for")
        match message:
            case ModelRefusal():
                item.done.set_exception(LinkError(f"{short(peer)} does not share this run's model, or has another"))
            case ModelHeader(digest=digest, total=total):
                if digest != item.digest or total != len(item.buffer):
                    item.done.set_exception(
                        LinkError(f"{short(peer)} offers {total} bytes, the plan's model has {len(item.buffer)}")
                    )
                item.started = True
            case ModelPart(offset=offset, payload=part):
                if not item.started or offset != item.filled or offset + len(part) > len(item.buffer):
                    item.done.set_exception(
                        LinkError(
                            f"{short(peer)} sent {len(part)} bytes at {offset}, expected those at {item.filled}"
                        )
                    )
                    return
                item.buffer[offset : offset + len(part)] = part
                item.filled += len(part)
                item.progress(item.filled, len(item.buffer))
        if item.started and item.filled == len(item.buffer) and not item.done.done():
            item.done.set_result(bytes(item.buffer))

    def _serve(self, peer: PeerId, request: ModelRequest) -> None:
        run = request.run.hex()
        busy = peer in self._serving or len(self._serving) >= _MAX_SERVING
        if busy or not self._may_fetch(peer, run):
            self._mesh.send(peer, MessageKind.MODEL, encode(ModelRefusal(request.run, request.digest)))
            return
        task = asyncio.ensure_future(self._send_model(peer, request, run))
        self._serving[peer] = task
        task.add_done_callback(lambda _task: self._serving.pop(peer, None))

    async def _send_model(self, peer: PeerId, request: ModelRequest, run: str) -> None:
        data = await asyncio.to_thread(self._lookup, run, request.round, request.digest.hex())
        try:
            if data is None:
                self._mesh.send(peer, MessageKind.MODEL, encode(ModelRefusal(request.run, request.digest)))
                return
            header = ModelHeader(request.run, request.digest, len(data))
            self._mesh.send(peer, MessageKind.MODEL, encode(header))
            view = memoryview(data)
            for offset in range(0, len(data), PART_BYTES):
                part = ModelPart(request.run, offset, view[offset : offset + PART_BYTES])
                self._mesh.send(peer, MessageKind.MODEL, encode(part))
                await asyncio.wait_for(self._mesh.drain(peer), _PART_TIMEOUT_S)
        except (LinkError, LimitExceededError):
            return  # the peer went, or does not read; it asks another one
        except TimeoutError:
            _log.warning("model not taken", peer=short(peer), run=short(run), seconds=_PART_TIMEOUT_S)
