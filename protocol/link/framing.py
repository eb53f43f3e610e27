"""Messages in frames on a link (spec 04 §5). Sans-I/O: one data-channel message in, at most one message out.

A frame is one data-channel message of at most 64 KiB, all integers little-endian:

    u8  version (high four bits, 1) and kind (low four bits)
    u8  flags: 1 FIRST, 2 LAST
    u16 zero
    u32 message number: 0 for the first message of a direction, then one more per message
    u32 total bytes of the message (in a FIRST frame only)
    payload

A message is cut into frames; frames of different *classes* (control, bulk, model) may alternate, so that a vote does
not wait behind a chunk. A receiver therefore keeps at most one unfinished message per class, and knows its size from
the first frame, before it takes memory for it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from protocol.errors import LimitExceededError, LinkError

__all__ = [
    "CONTROL_MAX_BYTES",
    "FRAME_MAX_BYTES",
    "FRAME_MIN_BYTES",
    "LINK_VERSION",
    "FrameDecoder",
    "FrameEncoder",
    "Limits",
    "Message",
    "MessageClass",
    "MessageKind",
    "OutgoingMessage",
    "Payload",
]

LINK_VERSION: Final = 1
FRAME_MAX_BYTES: Final = 65536
"""The largest frame, header included; never above the `a=max-message-size` the other side announced."""
FRAME_MIN_BYTES: Final = 1024
"""Every frame of a message but its last is at least this long, so that no message costs millions of frames."""
CONTROL_MAX_BYTES: Final = 65536
"""The largest message of the control class."""

_FIRST: Final = 1
_LAST: Final = 2
_HEADER: Final = struct.Struct("<BBHI")
_FIRST_HEADER: Final = struct.Struct("<BBHII")
_NUMBERS: Final = 1 << 32

Payload = bytes | memoryview
"""What a message carries: `bytes` for the control class, a read-only `memoryview` of bytes for bulk and model."""


class MessageKind(IntEnum):
    """What a message is for (spec 04 §5.2)."""

    HELLO = 1
    CONTROL = 2
    BULK = 3
    MODEL = 4
    PING = 5
    BYE = 6


class MessageClass(IntEnum):
    """Messages of one class never interleave; messages of two classes may."""

    CONTROL = 0
    BULK = 1
    MODEL = 2


_CLASS_OF: Final = {
    MessageKind.HELLO: MessageClass.CONTROL,
    MessageKind.CONTROL: MessageClass.CONTROL,
    MessageKind.BULK: MessageClass.BULK,
    MessageKind.MODEL: MessageClass.MODEL,
    MessageKind.PING: MessageClass.CONTROL,
    MessageKind.BYE: MessageClass.CONTROL,
}
_CONTROL_LIMITS: Final = {
    MessageKind.HELLO: 224,
    MessageKind.CONTROL: CONTROL_MAX_BYTES,
    MessageKind.PING: 9,
    MessageKind.BYE: 201,
}
"""Bytes of the largest message of each kind of the control class (spec 04 §5.2)."""
_KIND_OF: Final = {(LINK_VERSION << 4) | kind: kind for kind in MessageKind}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest message each class accepts, in bytes; 0 refuses the class."""

    bulk_bytes: int = 0
    model_bytes: int = 0

    def of(self, kind: MessageKind) -> int:
        """The largest message of `kind`, in bytes."""
        if kind is MessageKind.BULK:
            return self.bulk_bytes
        if kind is MessageKind.MODEL:
            return self.model_bytes
        return _CONTROL_LIMITS[kind]


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message as it came: its kind and its payload (at least one byte)."""

    kind: MessageKind
    payload: Payload


class OutgoingMessage:
    """A message on its way out: which part of it has been framed already."""

    __slots__ = ("kind", "number", "payload", "sent_bytes")

    def __init__(self, kind: MessageKind, payload: Payload) -> None:
        self.kind = kind
        self.payload = payload
        self.number: int | None = None
        self.sent_bytes = 0

    @property
    def message_class(self) -> MessageClass:
        """The class that decides with what this message may interleave."""
        return _CLASS_OF[self.kind]

    @property
    def started(self) -> bool:
        """Whether a frame of it was made."""
        return self.number is not None

    @property
    def finished(self) -> bool:
        """Whether its last frame was made."""
        return self.sent_bytes == len(self.payload)


class FrameEncoder:
    """Cut one direction's messages into frames; numbers are given in the order in which messages start."""

    def __init__(self, *, max_frame_bytes: int = FRAME_MAX_BYTES) -> None:
        """Take the largest frame the other side accepts, in bytes.

        Raises:
            LinkError: smaller than every implementation must accept.
        """
        if max_frame_bytes < FRAME_MIN_BYTES:
            raise LinkError(f"link frames need {FRAME_MIN_BYTES} bytes, the other side accepts {max_frame_bytes}")
        self._max = min(max_frame_bytes, FRAME_MAX_BYTES)
        self._next = 0
        self._open: dict[MessageClass, OutgoingMessage] = {}

    def next_frame(self, message: OutgoingMessage) -> bytes:
        """The next frame of `message`; call again until `message.finished`.

        Raises:
            LinkError: the message is empty, done, or another of its class has not ended.
        """
        size = len(message.payload)
        fits = 0 < size <= self._max - _FIRST_HEADER.size
        if fits and not message.started and message.message_class not in self._open:
            return self._whole(message, size)
        return self._part(message, size)

    def open_message(self, message_class: MessageClass) -> OutgoingMessage | None:
        """The message of that class of which some but not all frames were made."""
        return self._open.get(message_class)

    def _whole(self, message: OutgoingMessage, size: int) -> bytes:
        number = self._take_number(message)
        message.sent_bytes = size
        header = _FIRST_HEADER.pack((LINK_VERSION << 4) | message.kind, _FIRST | _LAST, 0, number, size)
        return header + message.payload

    def _part(self, message: OutgoingMessage, size: int) -> bytes:
        if message.finished:
            raise LinkError(f"a link message needs at least 1 byte left to frame, this {message.kind.name} has 0")
        other = self._open.get(message.message_class)
        if other is not None and other is not message:
            raise LinkError(f"message {other.number} of class {message.message_class.name} has not ended yet")
        begin = message.sent_bytes
        header_bytes = _HEADER.size if message.started else _FIRST_HEADER.size
        end = min(size, begin + self._max - header_bytes)
        flags = (_LAST if end == size else 0) | (0 if message.started else _FIRST)
        byte = (LINK_VERSION << 4) | message.kind
        if message.number is None:
            header = _FIRST_HEADER.pack(byte, flags, 0, self._take_number(message), size)
        else:
            header = _HEADER.pack(byte, flags, 0, message.number)
        message.sent_bytes = end
        if end == size:
            self._open.pop(message.message_class, None)
        else:
            self._open[message.message_class] = message
        return b"".join((header, memoryview(message.payload)[begin:end]))

    def _take_number(self, message: OutgoingMessage) -> int:
        number = message.number = self._next
        self._next = (number + 1) % _NUMBERS
        return number


class _Partial:
    """An unfinished message: where its bytes are gathered, and how many are there."""

    __slots__ = ("filled", "kind", "number", "view")

    def __init__(self, kind: MessageKind, number: int, total: int) -> None:
        self.kind = kind
        self.number = number
        # Not zeroed: of a message that is announced and never comes, hardly any memory is taken. It is handed over
        # only when every byte was written.
        self.view = np.empty(total, np.uint8).data
        self.filled = 0

    def finish(self) -> Message:
        if _CLASS_OF[self.kind] is MessageClass.CONTROL:
            return Message(self.kind, bytes(self.view))
        return Message(self.kind, self.view.toreadonly())


class FrameDecoder:
    """Put one direction's frames together again. After an error the decoder must not be fed again."""

    def __init__(self, *, limits: Limits) -> None:
        self.limits = limits
        self._next = 0
        self._partials: dict[MessageClass, _Partial] = {}

    @property
    def unfinished(self) -> int:
        """How many messages have begun and not ended (at most one per class)."""
        return len(self._partials)

    def receive_data(self, frame: bytes) -> Message | None:
        """Take one frame; give the message it completes, if it completes one.

        Raises:
            LimitExceededError: the frame, or the total it announces, is above its bound.
            LinkError: anything else the rules of spec 04 §5 forbid; the message names the rule and both values.
        """
        size = len(frame)
        if size > FRAME_MAX_BYTES:
            raise LimitExceededError(f"link frame: {size} bytes, at most {FRAME_MAX_BYTES} are accepted")
        if size <= _HEADER.size:
            raise LinkError(f"link frame: {size} bytes are no header and payload (at least {_HEADER.size + 1})")
        byte, flags, reserved, number = _HEADER.unpack_from(frame)
        kind = _KIND_OF.get(byte)
        if kind is None:
            raise LinkError(f"link frame: expected version {LINK_VERSION} and a kind of 1 to 6, got {byte:#04x}")
        if reserved or flags > _FIRST | _LAST:
            raise LinkError(f"link frame: reserved bits must be zero, got flags {flags:#04x} and {reserved:#06x}")
        if flags & _FIRST:
            return self._first(kind, flags, number, frame)
        return self._continued(kind, flags, number, frame)

    def _first(self, kind: MessageKind, flags: int, number: int, frame: bytes) -> Message | None:
        if len(frame) <= _FIRST_HEADER.size:
            raise LinkError(f"link frame: {len(frame)} bytes hold no total and payload of a first frame")
        total: int = _FIRST_HEADER.unpack_from(frame)[4]
        part = len(frame) - _FIRST_HEADER.size
        if number != self._next:
            raise LinkError(f"link message: expected number {self._next}, got {number}")
        limit = self.limits.of(kind)
        if total > limit:
            raise LimitExceededError(f"link message of kind {kind.name}: {total} bytes announced, limit {limit}")
        of_class = _CLASS_OF[kind]
        if of_class in self._partials:
            unfinished = self._partials[of_class].number
            raise LinkError(f"link message {number} begins before message {unfinished} of its class has ended")
        self._next = (number + 1) % _NUMBERS
        if flags & _LAST:
            if part != total:
                raise LinkError(f"link message {number}: {total} bytes announced, {part} came")
            if of_class is MessageClass.CONTROL:
                return Message(kind, frame[_FIRST_HEADER.size :])
            return Message(kind, memoryview(frame)[_FIRST_HEADER.size :])
        partial = _Partial(kind, number, total)
        self._partials[of_class] = partial
        self._fill(partial, frame, _FIRST_HEADER.size, last=False)
        return None

    def _continued(self, kind: MessageKind, flags: int, number: int, frame: bytes) -> Message | None:
        of_class = _CLASS_OF[kind]
        partial = self._partials.get(of_class)
        if partial is None or partial.number != number or partial.kind is not kind:
            expected = "none" if partial is None else f"{partial.kind.name} {partial.number}"
            raise LinkError(f"link frame continues {kind.name} {number}, unfinished in its class is {expected}")
        last = bool(flags & _LAST)
        self._fill(partial, frame, _HEADER.size, last=last)
        if not last:
            return None
        del self._partials[of_class]
        return partial.finish()

    @staticmethod
    def _fill(partial: _Partial, frame: bytes, header_bytes: int, *, last: bool) -> None:
        end = partial.filled + len(frame) - header_bytes
        total = len(partial.view)
        if not last and len(frame) < FRAME_MIN_BYTES:
            raise LinkError(f"link frame: {len(frame)} bytes, all but the last have at least {FRAME_MIN_BYTES}")
        if (end != total) if last else (end >= total):
            raise LinkError(f"link message {partial.number}: {total} bytes announced, {end} came")
        partial.view[partial.filled : end] = memoryview(frame)[header_bytes:]
        partial.filled = end
