"""Ring elements as bytes (spec 07 §6): k = 16, 24 and 32 as little-endian integers, 20 bits two in five bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocol.errors import EncodingError

__all__ = ["pack_into", "unpack"]

Words = NDArray[np.uint32]


def pack_into(values: Words, ring_bits: int, out: memoryview) -> None:
    """Pack the low `ring_bits` of uint32 [N], N a multiple of 8, into `out` of N * ring_bits / 8 bytes."""
    if len(out) * 8 != len(values) * ring_bits:
        raise EncodingError(f"{len(values)} values of {ring_bits} bits do not fill {len(out)} bytes")
    if ring_bits == 32:
        np.frombuffer(out, "<u4")[:] = values
    elif ring_bits == 16:
        np.frombuffer(out, "<u2")[:] = values  # uint32 to uint16 keeps the low bits
    elif ring_bits == 24:
        _pack24(values, np.frombuffer(out, "<u4").reshape(-1, 3))
    else:
        _pack20(values, np.frombuffer(out, "<u4").reshape(-1, 5))


def unpack(data: bytes | memoryview, ring_bits: int) -> Words:
    """Values of `pack_into` as uint32 [N].

    Raises:
        EncodingError: the length is not that of a multiple of eight values.
    """
    if len(data) % ring_bits:
        raise EncodingError(f"{len(data)} bytes are no multiple of eight {ring_bits}-bit values")
    if ring_bits == 32:
        return np.frombuffer(data, "<u4").astype(np.uint32)
    if ring_bits == 16:
        return np.frombuffer(data, "<u2").astype(np.uint32)
    if ring_bits == 24:
        return _unpack24(np.frombuffer(data, "<u4").reshape(-1, 3))
    return _unpack20(np.frombuffer(data, "<u4").reshape(-1, 5))


def _pack20(values: Words, out: Words) -> None:
    # Eight 20-bit values fill five 32-bit words; value i starts at bit 20 i.
    v = (values & np.uint32(0xFFFFF)).reshape(-1, 8)
    np.bitwise_or(v[:, 0], v[:, 1] << 20, out=out[:, 0])
    np.bitwise_or(v[:, 1] >> 12, (v[:, 2] << 8) | (v[:, 3] << 28), out=out[:, 1])
    np.bitwise_or(v[:, 3] >> 4, v[:, 4] << 16, out=out[:, 2])
    np.bitwise_or(v[:, 4] >> 16, (v[:, 5] << 4) | (v[:, 6] << 24), out=out[:, 3])
    np.bitwise_or(v[:, 6] >> 8, v[:, 7] << 12, out=out[:, 4])


def _unpack20(words: Words) -> Words:
    low = np.uint32(0xFFFFF)
    out = np.empty((len(words), 8), np.uint32)
    np.bitwise_and(words[:, 0], low, out=out[:, 0])
    np.bitwise_and((words[:, 0] >> 20) | (words[:, 1] << 12), low, out=out[:, 1])
    np.bitwise_and(words[:, 1] >> 8, low, out=out[:, 2])
    np.bitwise_and((words[:, 1] >> 28) | (words[:, 2] << 4), low, out=out[:, 3])
    np.bitwise_and((words[:, 2] >> 16) | (words[:, 3] << 16), low, out=out[:, 4])
    np.bitwise_and(words[:, 3] >> 4, low, out=out[:, 5])
    np.bitwise_and((words[:, 3] >> 24) | (words[:, 4] << 8), low, out=out[:, 6])
    np.right_shift(words[:, 4], 12, out=out[:, 7])
    return out.reshape(-1)


def _pack24(values: Words, out: Words) -> None:
    # Four 24-bit values fill three 32-bit words; value i starts at bit 24 i.
    v = values.reshape(-1, 4)
    np.bitwise_or(v[:, 0] & np.uint32(0xFFFFFF), v[:, 1] << 24, out=out[:, 0])
    np.bitwise_or((v[:, 1] >> 8) & np.uint32(0xFFFF), v[:, 2] << 16, out=out[:, 1])
    np.bitwise_or((v[:, 2] >> 16) & np.uint32(0xFF), v[:, 3] << 8, out=out[:, 2])


def _unpack24(words: Words) -> Words:
    low = np.uint32(0xFFFFFF)
    out = np.empty((len(words), 4), np.uint32)
    np.bitwise_and(words[:, 0], low, out=out[:, 0])
    np.bitwise_and((words[:, 0] >> 24) | (words[:, 1] << 8), low, out=out[:, 1])
    np.bitwise_and((words[:, 1] >> 16) | (words[:, 2] << 16), low, out=out[:, 2])
    np.right_shift(words[:, 2], 8, out=out[:, 3])
    return out.reshape(-1)
