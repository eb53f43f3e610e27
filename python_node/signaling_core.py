"""The connection under a session: requests matched to replies, events queued, blob parts routed, reconnects.

    dial --> connected --(lost)--> waiting (random back-off) --> dial ...
    any --(closed, replaced, untrusted, events unread)--> ended

Every request may be repeated without harm, so one that is caught by a lost connection is sent again after the
reconnect, until its time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Self, TypeVar

import structlog
from websockets.asyncio.connection import broadcast
from websockets.exceptions import ConnectionClosed

from protocol.errors import ProtocolError
from protocol.identity import Identity, PeerId, short
from protocol.signaling import (
    BlobProgress,
    BlobSlice,
    Challenge,
    Error,
    GetBlob,
    Message,
    Relay,
    RelayKind,
    Reply,
    Request,
    RunChanged,
    RunReply,
    Welcome,
    codes,
    decode_blob_part,
    decode_from_server,
    encode_blob_part,
    encode_message,
)
from python_node.signaling_errors import (
    SignalingDownError,
    SignalingEndedError,
    SignalingRefusedError,
    SignalingSessionError,
    SignalingUntrustedError,
)
from python_node.signaling_events import Disconnected, Reconnected, RelayFailed, SessionEvent
from python_node.signaling_handshake import Dial, Opened, dial
from python_node.signaling_memory import Memory, with_id

__all__ = ["SessionCore", "SessionOptions"]

_R = TypeVar("_R", bound=Reply)
_T = TypeVar("_T")
_log = structlog.get_logger("signaling_session")

MAX_RELAYS_REMEMBERED = 4096
_PASSING = (codes.NOT_AUTHENTICATED, codes.RATE_LIMITED, codes.QUOTA_EXCEEDED, codes.INTERNAL)
"""Refusals of a new connection that end with the load or fault behind them; others hold for good."""


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """Times in seconds and bounds of one session."""

    request_timeout_s: float = 30.0
    """From a request to its reply, reconnects included."""
    first_backoff_s: float = 0.1
    longest_backoff_s: float = 15.0
    """Reconnects wait a random time up to a bound that doubles from the first to the longest."""
    event_queue: int = 4096
    """Events waiting to be read; when full the session ends, rather than growing or losing one unnoticed."""


class _Lost(Exception):  # noqa: N818 (never leaves this module)
    """The connection went away while something waited for it."""


class SessionCore:
    """Everything of a session but the requests by name; see `python_node.signaling_link.SignalingSession`."""

    def __init__(self, where: Dial, identity: Identity, options: SessionOptions) -> None:
        self._where = where
        self._identity = identity
        self._options = options
        self._memory = Memory()
        self._events: asyncio.Queue[SessionEvent | None] = asyncio.Queue()
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._relays: dict[int, Relay] = {}
        self._progress: dict[str, Callable[[BlobProgress | Exception], None]] = {}
        self._slices: dict[int, asyncio.Queue[bytes | Exception]] = {}
        self._slice: tuple[int, int, str, int] | None = None
        """The slice whose binary frames are arriving: request id, bytes left, digest, next offset."""
        self._next_id = 0
        self._opened: Opened | None = None
        self._connected = asyncio.Event()
        self._error: SignalingSessionError | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- state -------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where the signaling server is."""
        return self._where.url

    @property
    def peer_id(self) -> PeerId:
        """This peer."""
        return self._identity.peer_id

    @property
    def server(self) -> PeerId | None:
        """The signaling server's proven identity, for pinning."""
        return None if self._opened is None else self._opened.server

    @property
    def is_connected(self) -> bool:
        """Whether a connection is open right now."""
        return self._connected.is_set()

    async def events(self) -> AsyncIterator[SessionEvent]:
        """Events in the order they came; ends when the session is closed.

        Raises:
            SignalingSessionError: the session ended for another reason.
        """
        while True:
            event = await self._events.get()
            if event is None:
                self._events.put_nowait(None)  # for whoever asks next
                if self._error is not None and not isinstance(self._error, ClosedError):
                    raise self._error
                return
            yield event

    async def close(self) -> None:
        """Close the connection and end `events`; a second time does nothing."""
        self._end(ClosedError(self.url, "the session is closed"))
        if self._opened is not None:
            await self._opened.socket.close()
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def relay(self, to: str, via: str, kind: RelayKind, payload: bytes) -> None:
        """Hand a set-up message to another peer, at once and without a reply; failures come as `RelayFailed`.

        While the connection is lost, the failure comes at once, with code "peer-offline".
        """
        relay = Relay(id=self._new_id(), to=to, via=via, kind=kind, payload=payload)
        if self._opened is None or not self.is_connected:
            failed = RelayFailed(to, via, codes.PEER_OFFLINE, f"no connection to {self.url}")
            self._emit(failed)
            return
        self._relays[relay.id] = relay
        if len(self._relays) > MAX_RELAYS_REMEMBERED:
            del self._relays[next(iter(self._relays))]
        broadcast([self._opened.socket], encode_message(relay))

    # --- requests ----------------------------------------------------------------------------------------------

    async def request(self, request: Request, kind: type[_R], *, timeout_s: float | None = None) -> _R:
        """Send a request (its id is replaced) and wait for its reply of type `kind`.

        Raises:
            SignalingRefusedError: the signaling server refused it.
            SignalingDownError: no reply in time.
            SignalingEndedError: the session is over.
            SignalingUntrustedError: a reply of another type.
        """
        limit_s = self._options.request_timeout_s if timeout_s is None else timeout_s
        name = type(request).__name__
        self._memory.note(request)
        try:
            async with asyncio.timeout(limit_s):
                reply = await self._until_answered(request)
        except TimeoutError:
            state = "connected" if self.is_connected else "not reachable"
            raise SignalingDownError(self.url, f"no reply to {name} within {limit_s:g} s ({state})") from None
        except SignalingRefusedError:
            self._memory.forget(request)
            raise
        if not isinstance(reply, kind):
            raise SignalingUntrustedError(self.url, f"answered {name} with {type(reply).__name__}")
        return reply

    async def _until_answered(self, request: Request) -> Reply:
        while True:
            await self._ensure_connected()
            with contextlib.suppress(_Lost):
                return await self._once(request)

    async def _ensure_connected(self) -> Opened:
        if self._error is None:
            await self._connected.wait()
        if self._error is not None or self._opened is None:
            raise self._error or SignalingEndedError(self.url, "the session is closed")
        return self._opened

    async def _once(self, request: Request) -> Reply:
        opened = await self._ensure_connected()
        request_id = self._new_id()
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = reply
        try:
            await opened.socket.send(encode_message(with_id(request, request_id)))
            return await reply
        except ConnectionClosed:
            raise _Lost from None
        finally:
            self._waiting.pop(request_id, None)

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    # --- blobs (used by python_node.signaling_blobs) -----------------------------------------------------------

    async def send_part(self, digest: str, offset: int, data: bytes | memoryview) -> None:
        """Send one part of a blob.

        Raises:
            ConnectionError: the connection was lost.
        """
        opened = await self._ensure_connected()
        try:
            await opened.socket.send(encode_blob_part(digest, offset, data))
        except ConnectionClosed as error:
            raise ConnectionError(str(error)) from None

    def on_progress(self, digest: str, call: Callable[[BlobProgress | Exception], None] | None) -> None:
        """Have acknowledgements of a blob's parts, or the end of the connection, told to `call`; None ends that."""
        if call is None:
            self._progress.pop(digest, None)
        else:
            self._progress[digest] = call

    async def blob_slice(self, digest: str, offset: int, length: int) -> tuple[BlobSlice, bytes]:
        """Ask for part of a blob and wait for its bytes, at most `length`.

        Raises:
            ConnectionError: the connection was lost.
            SignalingRefusedError: the blob is not there.
            SignalingDownError: nothing came within `request_timeout_s`.
            SignalingUntrustedError: another slice than was asked for.
        """
        opened = await self._ensure_connected()
        request = GetBlob(id=self._new_id(), digest=digest, offset=offset, length=length)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        parts: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self._waiting[request.id], self._slices[request.id] = reply, parts
        try:
            await opened.socket.send(encode_message(request))
            head = await self._in_time(reply, "blob slice")
            if not isinstance(head, BlobSlice) or (head.digest, head.offset) != (digest, offset):
                raise SignalingUntrustedError(self.url, f"answered get_blob with {type(head).__name__}")
            if head.length > length:
                raise SignalingUntrustedError(self.url, f"sends {head.length} bytes, {length} were asked for")
            got = bytearray()
            while len(got) < head.length:
                part = await self._in_time(parts.get(), "blob part")
                if isinstance(part, Exception):
                    raise part
                got += part
            return head, bytes(got)
        except (ConnectionClosed, _Lost):
            raise ConnectionError("the connection was lost") from None
        finally:
            self._waiting.pop(request.id, None)
            self._slices.pop(request.id, None)

    async def _in_time(self, awaited: Awaitable[_T], what: str) -> _T:
        limit_s = self._options.request_timeout_s
        try:
            return await asyncio.wait_for(awaited, limit_s)
        except TimeoutError:
            raise SignalingDownError(self.url, f"no {what} within {limit_s:g} s") from None

    # --- the connection ----------------------------------------------------------------------------------------

    def _take(self, opened: Opened) -> None:
        self._opened = opened
        self._connected.set()

    async def _run(self) -> None:
        """Read until the connection ends, then dial again, until the session ends."""
        while self._error is None and self._opened is not None:
            reason = await self._read(self._opened)
            self._connected.clear()
            self._drop_waiting(reason)
            if self._error is None:
                self._emit(Disconnected(reason))
                _log.info("disconnected", url=self.url, reason=reason)
                await self._redial()

    async def _read(self, opened: Opened) -> str:
        """Handle frames; gives the reason why there are no more."""
        try:
            while True:
                frame = await opened.socket.recv()
                if isinstance(frame, str):
                    self._on_message(decode_from_server(frame))
                else:
                    self._on_part(frame)
        except ConnectionClosed as error:
            return str(error)
        except (ProtocolError, SignalingUntrustedError) as error:
            await opened.socket.close(1002)
            return f"broke the protocol: {error}"

    async def _redial(self) -> None:
        bound_s = self._options.first_backoff_s
        while self._error is None:
            # Full jitter, so that a restarted signaling server is not met by all its peers at once.
            await asyncio.sleep(random.uniform(0, bound_s))  # noqa: S311 (no secret depends on it)
            bound_s = min(2 * bound_s, self._options.longest_backoff_s)
            try:
                opened = await dial(self._where, self._identity)
            except (SignalingDownError, SignalingRefusedError) as error:
                if isinstance(error, SignalingRefusedError) and error.code not in _PASSING:
                    self._end(error)
                    return
                _log.info("still down", url=self.url, reason=str(error))
                continue
            except SignalingSessionError as error:
                self._end(error)
                return
            if self._error is not None:
                await opened.socket.close()
                return
            self._opened = opened
            self._say_again(opened)
            self._connected.set()
            self._emit(Reconnected())
            return

    def _say_again(self, opened: Opened) -> None:
        """Before anything else on the new connection; refusals are logged, since nobody waits for these replies."""
        for request in self._memory.again():
            request_id = self._new_id()
            reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            reply.add_done_callback(functools.partial(self._said_again, request))
            self._waiting[request_id] = reply
            broadcast([opened.socket], encode_message(with_id(request, request_id)))

    def _said_again(self, request: Request, reply: asyncio.Future[Reply]) -> None:
        if reply.cancelled():
            return
        error = reply.exception()
        if error is None and isinstance(answer := reply.result(), RunReply):
            self._memory.see(changed := RunChanged(status=answer.status))
            self._emit(changed)
        if isinstance(error, SignalingRefusedError):
            self._memory.forget(request)
            _log.warning("refused after reconnecting", request=type(request).__name__, reason=str(error))

    def _on_message(self, message: Message) -> None:
        match message:
            case Error():
                self._on_error(message)
            case BlobProgress():
                listener = self._progress.get(message.digest)
                if listener is not None:
                    listener(message)
            case Reply():
                if isinstance(message, BlobSlice) and message.length:
                    self._slice = (message.re, message.length, message.digest, message.offset)
                waiting = self._waiting.pop(message.re, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case Challenge() | Welcome():
                raise SignalingUntrustedError(self.url, f"sent {type(message).__name__} after the handshake")
            case _:
                self._memory.see(message)
                self._emit(message)  # type: ignore[arg-type]  # the remaining members of FromServer are the events

    def _on_error(self, error: Error) -> None:
        refused = SignalingRefusedError(self.url, error.code, error.message)
        if error.re is None:
            if error.code == codes.REPLACED:
                self._end(SignalingEndedError(self.url, f"{short(self.peer_id)} has connected from elsewhere"))
            for listener in list(self._progress.values()):
                listener(refused)
            _log.warning("error", url=self.url, code=error.code, reason=error.message)
            return
        relay = self._relays.pop(error.re, None)
        if relay is not None:
            self._emit(RelayFailed(relay.to, relay.via, error.code, error.message))
        waiting = self._waiting.pop(error.re, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(refused)

    def _on_part(self, frame: bytes) -> None:
        part = decode_blob_part(frame)
        if self._slice is None:
            raise SignalingUntrustedError(self.url, "sent a blob part nobody asked for")
        request_id, left, digest, offset = self._slice
        if (part.digest, part.offset) != (digest, offset) or len(part.data) > left:
            raise SignalingUntrustedError(self.url, f"sent byte {part.offset} of {part.digest[:12]}, not {offset}")
        left -= len(part.data)
        self._slice = (request_id, left, digest, offset + len(part.data)) if left else None
        parts = self._slices.get(request_id)
        if parts is not None:
            parts.put_nowait(bytes(part.data))

    def _drop_waiting(self, reason: str) -> None:
        self._slice = None
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(_Lost(reason))
        self._waiting.clear()
        self._relays.clear()
        for parts in self._slices.values():
            parts.put_nowait(_Lost(reason))
        for listener in list(self._progress.values()):
            listener(ConnectionError(reason))

    def _emit(self, event: SessionEvent) -> None:
        if self._events.qsize() >= self._options.event_queue:
            self._end(SignalingEndedError(self.url, f"{self._events.qsize()} events were not read"))
            return
        self._events.put_nowait(event)

    def _end(self, error: SignalingSessionError) -> None:
        """Nothing more happens; the first reason stays."""
        if self._error is not None:
            return
        self._error = error
        self._events.put_nowait(None)
        self._connected.set()  # wakes what waits for a connection; it then sees the error
        if self._opened is not None and not isinstance(error, ClosedError):
            self._opened.socket.transport.abort()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()


class ClosedError(SignalingEndedError):
    """`close` was called."""
