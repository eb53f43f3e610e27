"""Masked updates: adding masks before a vector leaves, taking them off the sum (spec 07 §6, §8)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from protocol.secagg import passes
from protocol.secagg.prg import TILE, MaskStream

__all__ = ["MaskedUpdate", "RingElements", "SignedKey", "mask_update", "unmask_sum"]

Words = NDArray[np.uint32]


@dataclass(frozen=True)
class SignedKey:
    """A mask key and whether its mask is added or taken away. `repr` shows no key."""

    key: bytes
    add: bool

    def __repr__(self) -> str:
        return f"SignedKey(add={self.add})"


@dataclass(frozen=True)
class MaskedUpdate:
    """The packed masked vector, cut into chunks, with the SHA-256 of each: what leaves the device."""

    chunks: tuple[memoryview, ...]
    digests: tuple[bytes, ...]


class RingElements(Protocol):
    """A vector in the ring, read once from its first element on: the plain values exist a tile at a time."""

    def fill(self, out: Words, /) -> None:
        """Write the next `len(out)` elements, at most TILE; zeros behind the vector's end."""


def mask_update(
    plain: RingElements, keys: Sequence[SignedKey], *, ring_bits: int, chunk_bounds: Sequence[tuple[int, int]]
) -> MaskedUpdate:
    """Add every mask to the elements of all chunks, pack them and hash the chunks."""
    length = chunk_bounds[-1][1]
    masks = _Masks(keys, start=0, longest=length)
    packed = bytearray(length * ring_bits // 8)
    view = memoryview(packed)
    tile = np.empty(min(TILE, length), np.uint32)
    for start in range(0, length, TILE):
        part = tile[: length - start]
        plain.fill(part)
        masks.add_to(part)
        passes.pack(part, view[start * ring_bits // 8 : (start + len(part)) * ring_bits // 8], ring_bits)
    frozen = view.toreadonly()
    chunks = tuple(frozen[start * ring_bits // 8 : end * ring_bits // 8] for start, end in chunk_bounds)
    return MaskedUpdate(chunks=chunks, digests=tuple(hashlib.sha256(chunk).digest() for chunk in chunks))


def unmask_sum(
    masked: Sequence[bytes | memoryview], keys: Sequence[SignedKey], *, ring_bits: int, start: int
) -> bytes:
    """Sum packed chunks of the survivors and add or take away the given masks; `start` is the chunk's first element.

    Returns:
        The packed chunk of the aggregate.
    """
    packed = bytearray(len(masked[0]))
    view = memoryview(packed)
    length = len(packed) * 8 // ring_bits
    masks = _Masks(keys, start=start, longest=length)
    tile = np.empty(min(TILE, length), np.uint32)
    for at in range(0, length, TILE):
        part = tile[: length - at]
        part[:] = 0
        place = slice(at * ring_bits // 8, (at + len(part)) * ring_bits // 8)
        for chunk in masked:
            passes.add_packed(part, memoryview(chunk)[place], ring_bits)
        masks.add_to(part)
        passes.pack(part, view[place], ring_bits)
    return bytes(packed)


class _Masks:
    """The masks of several keys, expanded a tile at a time and added two at a time."""

    def __init__(self, keys: Sequence[SignedKey], *, start: int, longest: int) -> None:
        streams = [(MaskStream(item.key, start=start), item.add) for item in keys]
        self._pairs = list(zip(streams[::2], streams[1::2], strict=False))
        self._single = streams[-1] if len(streams) % 2 else None
        self._one, self._two = np.empty((2, min(TILE, longest)), np.uint32)

    def add_to(self, part: Words) -> None:
        """Add the next `len(part)` elements of every mask, or take them away."""
        one, two = self._one[: len(part)], self._two[: len(part)]
        first, second = one.data.cast("B"), two.data.cast("B")
        for (stream, add), (other, add_other) in self._pairs:
            stream.fill(first)
            other.fill(second)
            passes.add_two_masks(part, one, two, add, add_other)
        if self._single is not None:
            stream, add = self._single
            stream.fill(first)
            passes.add_mask(part, one, add)
