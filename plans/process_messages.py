"""What a node and the process that runs a plan for it say to each other: a head in JSON, then the bytes of arrays.

The node believes nothing of what comes back: it takes arrays of the dtypes and shapes it asked for, and one of a few
kinds of errors with a bounded text.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterable
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np

from plans.errors import ExecutionError

__all__ = ["MAX_TEXT", "Answer", "ArrayForm", "Cancel", "Channel", "Evaluate", "Open", "Request", "Train", "form_of"]

Array = np.ndarray[Any, Any]

MAX_TEXT = 4000
"""Characters of an error's text."""

_MAX_HEAD_BYTES = 1 << 20
_SIZE = struct.Struct(">I")
_BUFFER_BYTES = 1 << 20


class ArrayForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An array whose bytes follow the head."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class _Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    number: int
    """Counts requests; an answer and a cancellation bear that of theirs."""
    arrays: tuple[ArrayForm, ...] = ()


class Open(_Head, frozen=True, tag="open", kw_only=True):
    """The plan to run: arrays are the manifest's bytes, and blobs by digest."""

    threads: int
    keep_memory: bool
    call_limit_s: float


class Train(_Head, frozen=True, tag="train", kw_only=True):
    """Train from the arrays theta and buffers, on those of `data/...` or, where there are none, on those kept."""

    keep_data: bool
    batch_size: int
    epochs: int
    learning_rate: float
    seed: bytes
    steps_per_call: int


class Evaluate(_Head, frozen=True, tag="evaluate", kw_only=True):
    """Evaluate theta and buffers, on data as in `Train`."""

    keep_data: bool


class Cancel(_Head, frozen=True, tag="cancel", kw_only=True):
    """Nobody waits for the answer to the request of that number any more."""


Request = Open | Train | Evaluate | Cancel


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What came of a request; where it worked, its results follow: theta and buffers if it trained, then sums."""

    number: int
    error: Literal["execution", "data", "cancelled"] | None = None
    text: str = ""


_Said = TypeVar("_Said")


def form_of(name: str, array: Array) -> ArrayForm:
    """How an array is announced."""
    return ArrayForm(name, array.dtype.str, array.shape)


class Channel:
    """One end of a pair of sockets between the two."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)

    def has_more(self, *, within_s: float) -> bool:
        """Whether something came, or the other end hung up; waits for it at most so long."""
        watch = select.poll()
        watch.register(self._end, select.POLLIN)
        return bool(watch.poll(within_s * 1000))

    def send(self, head: Request | Answer, arrays: Iterable[Array] = ()) -> None:
        """Send a message; blocks until the other end has taken most of it.

        Raises:
            OSError: the other end is gone.
        """
        data = msgspec.json.encode(head)
        self._end.sendall(_SIZE.pack(len(data)) + data)
        for array in arrays:
            if array.nbytes:
                self._end.sendall(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def receive(self, kind: type[_Said] | Any) -> _Said:
        """The next head.

        Raises:
            EOFError, OSError: the other end is gone.
            ExecutionError: it says what nobody should.
        """
        head = bytearray(_SIZE.size)
        self._fill(memoryview(head))
        (size,) = _SIZE.unpack(head)
        if size > _MAX_HEAD_BYTES:
            raise ExecutionError(f"a message head of {size} bytes, expected at most {_MAX_HEAD_BYTES}")
        data = bytearray(size)
        self._fill(memoryview(data))
        try:
            said: _Said = msgspec.json.decode(data, type=kind)
        except msgspec.MsgspecError as error:
            raise ExecutionError(f"a message head that is none: {error}") from None
        return said

    def answer_to(self, request: Request) -> Answer:
        """The head of an answer.

        Raises:
            EOFError, OSError: the other end is gone.
            ExecutionError: what came is no answer, or one to something else.
        """
        answer: Answer = self.receive(Answer)
        if answer.number != request.number:
            raise ExecutionError(f"an answer to request {answer.number}, expected one to {request.number}")
        return answer

    def take(self, form: ArrayForm) -> Array:
        """The bytes of an array that was announced.

        Raises:
            EOFError, OSError: the other end is gone.
        """
        array = np.empty(form.shape, np.dtype(form.dtype))
        if array.nbytes:
            self._fill(array.reshape(-1).view(np.uint8).data)
        return array

    def close(self) -> None:
        """Hang up."""
        self._end.close()

    def _fill(self, room: memoryview) -> None:
        while len(room):
            count = self._end.recv_into(room)
            if not count:
                raise EOFError("the other end hung up")
            room = room[count:]
