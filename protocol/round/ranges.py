"""What the numbers in a message may be (spec 07 §3): indexes and bitmaps within the cohort, lists without repeats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from protocol.round.errors import MessageError
from protocol.round.layouts import FORWARDED, NUMBERS
from protocol.round.messages import (
    HEADER_BYTES,
    Ack,
    Assign,
    Certificate,
    Chunk,
    Commit,
    Decide,
    Forward,
    Have,
    Kind,
    Message,
    Need,
    Result,
    Reveal,
    Status,
    Sum,
    Vote,
)

__all__ = ["check_chunks", "check_ranges"]

Numbers = Iterable[tuple[str, int]]


def check_ranges(message: Message, size: int) -> None:
    """Check a message of a cohort of `size`.

    Raises:
        MessageError: an index or bit beyond the cohort, a repeat, or a message inside that may not be there.
    """
    kind = type(message)
    if kind in _INDEXES:
        for name, value in _INDEXES[kind](message):
            if value >= size:
                raise MessageError(f"{kind.__name__}: {name} {value}, the cohort has {size} peers")
    if kind in _BITMAPS:
        for name, bits in _BITMAPS[kind](message):
            if bits >> size:
                raise MessageError(f"{kind.__name__}: {name} names a peer beyond the cohort of {size}")
    if kind in _LISTS:
        _LISTS[kind](message)


def check_chunks(message: Message, sizes: Sequence[int]) -> None:
    """Check a message against the chunks of the adopted mask set; `sizes` are their packed bytes.

    Raises:
        MessageError: it names a chunk that does not exist, holds another number of them, or one of another length.
    """
    name, count = type(message).__name__, len(sizes)
    match message:
        case Commit() if message.count != count:
            raise MessageError(f"{name}: {message.count} chunks, expected {count}")
        case Have():
            highest = max((chunk for chunk, _ in message.chunks), default=-1)
        case Need(what=Kind.SUMS) | Decide(kind=Kind.LOST):
            highest = message.members.bit_length() - 1
        case Assign() | Chunk() | Sum():
            highest = message.chunk
        case _:
            return
    if highest >= count:
        raise MessageError(f"{name}: chunk {highest}, expected less than {count}")
    if isinstance(message, Chunk | Sum) and len(message.payload) != sizes[highest]:
        raise MessageError(f"{name}: chunk {highest} has {len(message.payload)} bytes, expected {sizes[highest]}")


def _have_indexes(m: Have) -> Numbers:
    yield "view", m.view
    yield from (("chunk", chunk) for chunk, _ in m.chunks)


def _have_bitmaps(m: Have) -> Numbers:
    yield "commits", m.commits
    yield from (("contributors", held) for _, held in m.chunks)


def _check_decide(m: Decide) -> None:
    if m.kind in (Kind.MASKED, Kind.LOST) and any(m.root):
        raise MessageError(f"Decide: a decision of kind {m.kind} has root 0")


def _check_have(m: Have) -> None:
    if len({chunk for chunk, _ in m.chunks}) != len(m.chunks):
        raise MessageError("Have: a chunk is listed twice")


def _check_reveal(m: Reveal) -> None:
    if len({about for about, _, _ in m.shares}) != len(m.shares):
        raise MessageError("Reveal: two shares about one peer")


def _check_forward(m: Forward) -> None:
    if len(m.message) < HEADER_BYTES or m.message[1] not in FORWARDED:
        raise MessageError("Forward: no signed message of another peer")


def _check_status(m: Status) -> None:
    if any(len(decision) < HEADER_BYTES or decision[1] != NUMBERS[Decide] for decision in m.decisions):
        raise MessageError("Status: something else than decisions")


# A table of types and not a match statement, whose cases are tried in turn for each of a round's messages.
_INDEXES: dict[type, Callable[..., Numbers]] = {
    Decide: lambda m: (("view", m.view),),
    Ack: lambda m: (("view", m.view),),
    Status: lambda m: (("view", m.view),),
    Have: _have_indexes,
    Reveal: lambda m: [("peer", about) for about, _, _ in m.shares],
    Assign: lambda m: (("view", m.view), ("chunk", m.chunk), ("owner", m.owner)),
    Commit: lambda m: (("highest chunk", m.count - 1),),
    Chunk: lambda m: (("chunk", m.chunk),),
    Sum: lambda m: (("chunk", m.chunk),),
}
_BITMAPS: dict[type, Callable[..., Numbers]] = {
    Decide: lambda m: (("set", m.members),),
    Need: lambda m: (("set", m.members),),
    Ack: lambda m: (("shares held", m.held),),
    Have: _have_bitmaps,
    Vote: lambda m: (("survivors", m.survivors),),
    Result: lambda m: (("survivors", m.survivors),),
    Certificate: lambda m: (("survivors", m.survivors), ("voters", m.voters)),
}
_LISTS: dict[type, Callable[..., None]] = {
    Decide: _check_decide,
    Have: _check_have,
    Reveal: _check_reveal,
    Forward: _check_forward,
    Status: _check_status,
}
