"""Ring elements as bytes (spec 07 §6): k = 16, 24 and 32 as little-endian integers, 20 bits two in five bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocol.errors import EncodingError

__all__ = ["pack_into", "unpack"]

Words = NDArray[np.uint32]
_TILE = 1 << 15
"""Pairs of values unpacked at once: temporaries stay in cache."""


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
    out = np.empty(len(data) * 8 // ring_bits, np.uint32)
    if ring_bits == 24:
        _unpack24(data, out)
    else:
        _unpack20(data, out)
    return out


def _pack20(values: Words, out: Words) -> None:
    # Eight 20-bit values fill five 32-bit words; value i starts at bit 20 i.
    v = (values & np.uint32(0xFFFFF)).reshape(-1, 8)
    np.bitwise_or(v[:, 0], v[:, 1] << 20, out=out[:, 0])
    np.bitwise_or(v[:, 1] >> 12, (v[:, 2] << 8) | (v[:, 3] << 28), out=out[:, 1])
    np.bitwise_or(v[:, 3] >> 4, v[:, 4] << 16, out=out[:, 2])
    np.bitwise_or(v[:, 4] >> 16, (v[:, 5] << 4) | (v[:, 6] << 24), out=out[:, 3])
    np.bitwise_or(v[:, 6] >> 8, v[:, 7] << 12, out=out[:, 4])


def _unpack20(data: bytes | memoryview, out: Words) -> None:
    # Two values fill five bytes, so that an eight-byte window at each fifth byte holds a pair; it is spread to a word
    # each. The last window would reach beyond the data.
    pairs = out.view("<u8")
    if not len(pairs):
        return
    windows = np.ndarray((len(pairs) - 1,), "<u8", buffer=data, strides=(5,))
    space = np.empty(min(_TILE, len(windows)), "<u8")
    for start in range(0, len(windows), _TILE):
        both = windows[start : start + _TILE]
        high, low = pairs[start : start + len(both)], space[: len(both)]
        np.copyto(low, both)
        np.left_shift(low, np.uint64(12), out=high)
        np.bitwise_and(high, np.uint64(0xFFFFF << 32), out=high)
        np.bitwise_and(low, np.uint64(0xFFFFF), out=low)
        np.bitwise_or(high, low, out=high)
    last = int.from_bytes(data[-5:], "little")
    out[-2:] = last & 0xFFFFF, last >> 20


def _pack24(values: Words, out: Words) -> None:
    # Four 24-bit values fill three 32-bit words; value i starts at bit 24 i.
    v = values.reshape(-1, 4)
    np.bitwise_or(v[:, 0] & np.uint32(0xFFFFFF), v[:, 1] << 24, out=out[:, 0])
    np.bitwise_or((v[:, 1] >> 8) & np.uint32(0xFFFF), v[:, 2] << 16, out=out[:, 1])
    np.bitwise_or((v[:, 2] >> 16) & np.uint32(0xFF), v[:, 3] << 8, out=out[:, 2])


def _unpack24(data: bytes | memoryview, out: Words) -> None:
    # A four-byte window at each third byte holds a value and one byte more; the last would reach beyond the data.
    if not len(out):
        return
    np.copyto(out[:-1], np.ndarray((len(out) - 1,), "<u4", buffer=data, strides=(3,)))
    np.bitwise_and(out, np.uint32(0xFFFFFF), out=out)
    out[-1] = int.from_bytes(data[-3:], "little")
