"""What waits to be sent to one peer: three lanes, one per message class, bounded; no I/O here."""

from __future__ import annotations

from collections import deque
from typing import Final

from protocol.errors import LimitExceededError
from protocol.link import FrameEncoder, MessageKind, OutgoingMessage, Payload
from protocol.link.framing import MessageClass

__all__ = ["DEFAULT_PRIORITY", "Outbox"]

DEFAULT_PRIORITY: Final = {
    MessageKind.HELLO: 3,
    MessageKind.PING: 3,
    MessageKind.BYE: 3,
    MessageKind.CONTROL: 2,
    MessageKind.BULK: 1,
    MessageKind.MODEL: 0,
}


class Outbox:
    """Messages in the order they leave: the lane whose first message has the highest priority goes first.

    Lanes of equal priority take turns frame by frame. Within a lane the order of `push` holds, since messages of one
    class may not interleave.
    """

    def __init__(self, *, max_bytes: int, max_messages: int, max_frame_bytes: int) -> None:
        self._encoder = FrameEncoder(max_frame_bytes=max_frame_bytes)
        self._lanes: dict[MessageClass, deque[tuple[int, OutgoingMessage]]] = {lane: deque() for lane in MessageClass}
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._messages = 0
        self._last_lane = MessageClass.CONTROL
        self.queued_bytes = 0

    def __bool__(self) -> bool:
        return self._messages > 0

    def push(self, kind: MessageKind, payload: Payload, *, priority: int | None = None) -> None:
        """Queue a message; the payload must not change until it has left.

        Raises:
            LimitExceededError: the queue is full, or the payload is empty.
        """
        size = len(payload)
        if not size:
            raise LimitExceededError(f"a link message of kind {kind.name} has at least 1 byte, got 0")
        if self._messages >= self._max_messages or self.queued_bytes + size > self._max_bytes:
            raise LimitExceededError(
                f"{self._messages} messages of {self.queued_bytes} bytes wait for the peer, {size} more do not fit "
                f"in {self._max_messages} messages and {self._max_bytes} bytes: wait for drain()"
            )
        message = OutgoingMessage(kind, payload)
        rank = DEFAULT_PRIORITY[kind] if priority is None else priority
        self._lanes[message.message_class].append((rank, message))
        self._messages += 1
        self.queued_bytes += size

    def next_frame(self) -> bytes | None:
        """The frame to send now, or None when nothing waits."""
        if not self._messages:
            return None
        lane = self._choose()
        message = self._lanes[lane][0][1]
        before = message.sent_bytes
        frame = self._encoder.next_frame(message)
        self.queued_bytes -= message.sent_bytes - before
        if message.finished:
            self._lanes[lane].popleft()
            self._messages -= 1
        self._last_lane = lane
        return frame

    def finish_with(self, kind: MessageKind, payload: Payload) -> None:
        """Throw away what waits and end with this message of the control class.

        A control message of which a frame has left is completed first, since its class may not interleave.
        """
        for messages in self._lanes.values():
            messages.clear()
        started = self._encoder.open_message(MessageClass.CONTROL)
        lane = self._lanes[MessageClass.CONTROL]
        lane.extend((DEFAULT_PRIORITY[kind], x) for x in (started, OutgoingMessage(kind, payload)) if x is not None)
        self._messages = len(lane)
        self.queued_bytes = sum(len(x.payload) - x.sent_bytes for _, x in lane)

    def _choose(self) -> MessageClass:
        waiting = [lane for lane, messages in self._lanes.items() if messages]
        if len(waiting) == 1:
            return waiting[0]
        best = max(self._lanes[lane][0][0] for lane in waiting)
        equal = [lane for lane in waiting if self._lanes[lane][0][0] == best]
        later = [lane for lane in equal if lane > self._last_lane]
        return (later or equal)[0]
