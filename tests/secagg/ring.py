"""Ring elements as whole vectors and as bytes, for tests."""

from __future__ import annotations

import numpy as np

from protocol.secagg import passes
from protocol.secagg.masking import RingElements
from protocol.secagg.prg import TILE
from protocol.secagg.quantise import signed_sum


def read_whole(elements: RingElements, length: int) -> np.ndarray:
    """All elements at once, uint32 [length]."""
    out = np.empty(length, np.uint32)
    for start in range(0, length, TILE):
        elements.fill(out[start : start + TILE])
    return out


def packed(words: np.ndarray, ring_bits: int) -> bytes:
    out = bytearray(len(words) * ring_bits // 8)
    passes.pack(np.ascontiguousarray(words, np.uint32), out, ring_bits)
    return bytes(out)


def unpacked(data: bytes | memoryview, ring_bits: int) -> np.ndarray:
    out = np.zeros(len(data) * 8 // ring_bits, np.uint32)
    passes.add_packed(out, data, ring_bits)
    return out


def signed(elements: list[int], ring_bits: int, **bounds: int) -> np.ndarray:
    """Ring elements, of any number, as the signed sums they stand for."""
    padded = np.array(elements + [0] * (-len(elements) % 8), np.uint32)
    out = np.empty(len(padded), np.int32)
    signed_sum(packed(padded, ring_bits), out, ring_bits, **bounds)
    return out[: len(elements)]
