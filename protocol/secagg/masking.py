"""Masked updates: adding masks before a vector leaves, taking them off the sum (spec 07 §6, §8)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.secagg.packing import pack_into, unpack
from protocol.secagg.prg import TILE, MaskStream

__all__ = ["MaskedUpdate", "SignedKey", "mask_update", "unmask_sum"]

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


def mask_update(
    quantised: Words, keys: Sequence[SignedKey], *, ring_bits: int, chunk_bounds: Sequence[tuple[int, int]]
) -> MaskedUpdate:
    """Add every mask to uint32 [D], in place (the plain values are gone afterwards), pack it and hash the chunks."""
    streams = [(MaskStream(item.key), item.add) for item in keys]
    packed = bytearray(len(quantised) * ring_bits // 8)
    view = memoryview(packed)
    tile = np.empty(TILE, np.uint32)
    for start in range(0, len(quantised), TILE):
        part = quantised[start : start + TILE]
        _accumulate(part, streams, tile[: len(part)])
        pack_into(part, ring_bits, view[start * ring_bits // 8 : (start + len(part)) * ring_bits // 8])
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
    total = unpack(masked[0], ring_bits)
    for chunk in masked[1:]:
        total += unpack(chunk, ring_bits)
    streams = [(MaskStream(item.key, start=start), item.add) for item in keys]
    tile = np.empty(min(TILE, len(total)), np.uint32)
    for at in range(0, len(total), TILE):
        part = total[at : at + TILE]
        _accumulate(part, streams, tile[: len(part)])
    packed = bytearray(len(total) * ring_bits // 8)
    pack_into(total, ring_bits, memoryview(packed))
    return bytes(packed)


def _accumulate(part: Words, streams: Sequence[tuple[MaskStream, bool]], tile: Words) -> None:
    for stream, add in streams:
        stream.fill(tile)
        if add:
            np.add(part, tile, out=part)
        else:
            np.subtract(part, tile, out=part)
