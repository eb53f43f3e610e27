"""One open channel to one peer: HELLO, frames both ways, liveness, orderly end (spec 04 §4 to §6)."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from protocol.errors import LimitExceededError, LinkError, ProtocolError
from protocol.identity import Identity, short
from protocol.link import FrameDecoder, Limits, LinkIdentity, Message, MessageKind, Payload, seal_hello, verify_hello
from python_node.mesh.outbox import Outbox

if TYPE_CHECKING:
    from python_node.mesh.config import MeshConfig
    from python_node.mesh.rtc import RtcConnection
    from python_node.running_clock import RunningClock

__all__ = ["ByeCode", "Link", "LinkCounters", "LinkEnd", "LinkEvents"]

_PING: Final = struct.Struct("<BQ")
"""u8 0 for a ping or 1 for its answer, u64 any number, sent back as it came (here microseconds)."""
_BYE_TEXT_BYTES: Final = 200
_ON_THE_WAY_S: Final = 1.0
"""What is heard of a peer so long after signaling lost it may have been sent before."""


class ByeCode(IntEnum):
    """Why a side ends a link (spec 04 §6)."""

    GOING = 0
    REFUSED = 1
    REPLACED = 2


@dataclass(slots=True)
class LinkCounters:
    """Bytes and messages of data-channel traffic with a peer, frame headers included, over all its links."""

    bytes_sent: int = 0
    bytes_received: int = 0
    frames_sent: int = 0
    frames_received: int = 0

    def add(self, other: LinkCounters) -> None:
        """Count another's traffic here too."""
        self.bytes_sent += other.bytes_sent
        self.bytes_received += other.bytes_received
        self.frames_sent += other.frames_sent
        self.frames_received += other.frames_received


@dataclass(frozen=True, kw_only=True)
class LinkEnd:
    """How a link ended: the reason for people, and whether making a new one is worth a try."""

    reason: str
    retry: bool


@dataclass(frozen=True, kw_only=True)
class LinkEvents:
    """What a link reports; `on_end` comes exactly once and last."""

    on_ready: Callable[[], None]
    on_message: Callable[[MessageKind, Payload], None]
    on_end: Callable[[LinkEnd], None]


class Link:
    """States: greeting (our HELLO is out), ready (theirs was right), over."""

    def __init__(
        self,
        rtc: RtcConnection,
        view: LinkIdentity,
        identity: Identity,
        *,
        config: MeshConfig,
        clock: RunningClock,
        limits: Limits,
        counters: LinkCounters,
        events: LinkEvents,
    ) -> None:
        """Greet on a channel that has just opened."""
        self._loop = asyncio.get_running_loop()
        self._rtc = rtc
        self._config = config
        self._clock = clock
        self._events = events
        self._counters = counters
        self._decoder = FrameDecoder(limits=limits)
        self._outbox = Outbox(
            max_bytes=config.queue_bytes,
            max_messages=config.queue_messages,
            max_frame_bytes=rtc.max_message_bytes,
        )
        self._drained: list[asyncio.Future[None]] = []
        self._over = False
        self._pinged = False
        self._closing = False
        self._linger: asyncio.TimerHandle | None = None
        self._transport_closed: asyncio.Future[None] = self._loop.create_future()
        self.view = view
        self.ready = False
        self.rtt_s: float | None = None
        self.last_heard = clock.now()
        self._lost_at: float | None = None
        self._enqueue(MessageKind.HELLO, seal_hello(identity, view))

    def __repr__(self) -> str:
        state = "over" if self._over else "ready" if self.ready else "greeting"
        return f"Link({short(self.view.local)} to {short(self.view.remote)}, {state})"

    def set_limits(self, limits: Limits) -> None:
        """Accept messages up to these sizes from now on."""
        self._decoder.limits = limits

    def send(self, kind: MessageKind, payload: Payload, *, priority: int | None = None) -> None:
        """Queue a message and send what the channel takes now.

        Raises:
            LinkError: the link is not ready.
            LimitExceededError: too much waits already.
        """
        if not self.ready or self._over:
            raise LinkError(f"{self!r} carries no messages")
        self._enqueue(kind, payload, priority=priority)

    async def drain(self) -> None:
        """Wait until all that was sent has left the queue and the channel's buffer is low.

        Raises:
            LinkError: the link ended before.
        """
        if self._over:
            raise LinkError(f"{self!r} ended before all was sent")
        if self._empty():
            return
        waiter = self._loop.create_future()
        self._drained.append(waiter)
        await waiter

    def receive(self, frame: bytes) -> None:
        """Take one data-channel message; a broken rule ends the link with its reason."""
        self._counters.bytes_received += len(frame)
        self._counters.frames_received += 1
        if self._over:
            self._after_end(frame)
            return
        self.last_heard = self._clock.now()
        self._pinged = False
        try:
            message = self._decoder.receive_data(frame)
            if message is not None:
                self._dispatch(message)
        except ProtocolError as error:
            self.close(f"{short(self.view.remote)} broke the link's rules: {error}", code=ByeCode.REFUSED)

    def writable(self) -> None:
        """The channel's buffer is low: feed it."""
        self._pump()

    def channel_ended(self, reason: str) -> None:
        """The transport went away."""
        self._end(LinkEnd(reason=reason, retry=True))

    def signaling_lost(self) -> None:
        """Signaling has no session with the peer any more: if it falls silent too, its process is gone."""
        self._lost_at = self._clock.now()

    def signaling_regained(self) -> None:
        """Signaling has a session with the peer again: if it falls silent, it may only be slow."""
        self._lost_at = None

    def tick(self, now: float) -> None:
        """Look after liveness; `now` is the clock's."""
        silent = now - self.last_heard
        lost = self._lost_at is not None and self.last_heard < self._lost_at + _ON_THE_WAY_S
        if silent >= self._config.dead_after_s or (lost and silent >= self._config.gone_after_s):
            reason = f"{short(self.view.remote)} was silent for {silent:.1f} s" + ", signaling lost it too" * lost
            self._end(LinkEnd(reason=reason, retry=True))
        elif silent >= self._config.ping_after_s and self.ready and not self._pinged:
            self._pinged = True
            try:
                self._enqueue(MessageKind.PING, _PING.pack(0, int(now * 1e6)))
            except LimitExceededError as error:  # a peer that reads nothing can have the queue full
                reason = f"{short(self.view.remote)} was silent, and cannot be asked: {error}"
                self._end(LinkEnd(reason=reason, retry=True))

    def close(self, reason: str, *, code: ByeCode = ByeCode.GOING) -> None:
        """Say goodbye and end. The transport closes when the other side has, or after `close_timeout_s`.

        Whatever still waits is thrown away: call `drain` first where it matters.
        """
        if self._over:
            return
        if self._rtc.usable:
            self._outbox.finish_with(MessageKind.BYE, bytes([code]) + reason.encode()[:_BYE_TEXT_BYTES])
            self._pump(until_empty=True)
        linger = self._loop.call_later(self._config.close_timeout_s, self._close_transport)
        self._end(LinkEnd(reason=reason, retry=False), linger=linger)

    async def closed(self) -> None:
        """Wait until the transport is closed; call after the link ended."""
        await asyncio.shield(self._transport_closed)

    def _enqueue(self, kind: MessageKind, payload: Payload, *, priority: int | None = None) -> None:
        self._outbox.push(kind, payload, priority=priority)
        self._pump()

    def _pump(self, *, until_empty: bool = False) -> None:
        high = self._config.channel_high_bytes
        while not self._over and self._rtc.usable and (until_empty or self._rtc.buffered_bytes < high):
            frame = self._outbox.next_frame()
            if frame is None:
                break
            self._counters.bytes_sent += len(frame)
            self._counters.frames_sent += 1
            self._rtc.send(frame)
        if self._drained and self._empty():
            for waiter in self._drained:
                if not waiter.done():
                    waiter.set_result(None)
            self._drained.clear()

    def _empty(self) -> bool:
        return not self._outbox and self._rtc.buffered_bytes <= self._config.channel_low_bytes

    def _dispatch(self, message: Message) -> None:
        if message.kind is MessageKind.HELLO:
            self._greeted(bytes(message.payload))
        elif not self.ready:
            raise LinkError(f"expected HELLO first, got {message.kind.name}")
        elif message.kind is MessageKind.PING:
            self._ping_or_pong(message.payload)
        elif message.kind is MessageKind.BYE:
            self._goodbye(bytes(message.payload))
        else:
            self._hand_over(message)

    def _hand_over(self, message: Message) -> None:
        """Give a message to the node; what goes wrong there is no fault of the peer and ends no link."""
        try:
            self._events.on_message(message.kind, message.payload)
        except Exception as error:  # noqa: BLE001 (reported, with its traceback, to the event loop's handler)
            context = {"message": f"on_message failed for {message.kind.name} on {self!r}", "exception": error}
            self._loop.call_exception_handler(context)

    def _after_end(self, frame: bytes) -> None:
        """Both sides said goodbye at the same time: then nobody has to wait for the other."""
        try:
            message = self._decoder.receive_data(frame)
        except ProtocolError:
            self._close_transport()  # Its rules no longer matter: the link is over and refused already.
            return
        if message is not None and message.kind is MessageKind.BYE:
            self._close_transport()

    def _greeted(self, payload: bytes) -> None:
        if self.ready:
            raise LinkError("a second HELLO came")
        verify_hello(payload, self.view)
        self.ready = True
        self._events.on_ready()

    def _ping_or_pong(self, payload: Payload) -> None:
        if len(payload) != _PING.size or payload[0] > 1:
            raise LinkError(f"a ping has {_PING.size} bytes and begins with 0 or 1, got {len(payload)} bytes")
        step, stamp = _PING.unpack(payload)
        if step:
            self.rtt_s = max(0.0, self._clock.now() - stamp / 1e6)
        elif not self._outbox:
            # While something waits, that is the sign of life; so pings cannot fill the queue.
            self._enqueue(MessageKind.PING, _PING.pack(1, stamp))

    def _goodbye(self, payload: bytes) -> None:
        if payload[0] not in set(ByeCode):
            raise LinkError(f"BYE with code {payload[0]}, known are 0 to {max(ByeCode)}")
        code = ByeCode(payload[0])
        text = payload[1 : 1 + _BYE_TEXT_BYTES].decode(errors="replace")
        reason = f"{short(self.view.remote)} ended the link ({code.name.lower()}): {text!r}"
        self._end(LinkEnd(reason=reason, retry=False))

    def _end(self, end: LinkEnd, *, linger: asyncio.TimerHandle | None = None) -> None:
        if self._over:
            if linger is None and self._linger is not None:
                # The other side has closed too: nothing is left to wait for.
                self._close_transport()
            return
        self._over = True
        self._linger = linger
        for waiter in self._drained:
            if not waiter.done():
                waiter.set_exception(LinkError(f"{self!r} ended before all was sent: {end.reason}"))
        self._drained.clear()
        if linger is None:
            self._close_transport()
        self._events.on_end(end)

    def _close_transport(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if not self._closing:
            self._closing = True
            self._rtc.close().add_done_callback(self._transport_done)

    def _transport_done(self, task: asyncio.Task[None]) -> None:
        if not self._transport_closed.done():
            self._transport_closed.set_result(None)
        if not task.cancelled() and task.exception() is not None:
            self._loop.call_exception_handler({"message": f"closing {self!r}", "exception": task.exception()})
