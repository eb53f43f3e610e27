"""The passes over long vectors with numpy: what runs where nothing could be compiled, and what the loops must equal.

Every function writes into buffers it is given. Ring elements are uint32, and only their low `ring_bits` count; packed
they are little-endian integers of 16, 24 or 32 bits, or of 20 bits two in five bytes (spec 07 §6).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "REVISION",
    "add_mask",
    "add_packed",
    "add_two_masks",
    "advance",
    "mean",
    "pack",
    "quantise",
    "unpack_signed",
]

REVISION = 1
"""Of names, arguments and results here: a compiled module that says another number was built from other sources."""

Words = NDArray[np.uint32]
Packed = bytes | bytearray | memoryview
_TILE = 1 << 14
"""Elements of a temporary: it stays in cache."""


def pack(values: Words, out: bytearray | memoryview, ring_bits: int) -> None:
    """Pack the low `ring_bits` of uint32 [N], N a multiple of 8, into `out` of N * ring_bits / 8 bytes.

    Raises:
        ValueError: the lengths do not fit, or `ring_bits` is not 16, 20, 24 or 32.
    """
    _require_fit(len(values), len(out), ring_bits)
    if ring_bits == 32:
        np.frombuffer(out, "<u4")[:] = values
    elif ring_bits == 16:
        np.frombuffer(out, "<u2")[:] = values  # uint32 to uint16 keeps the low bits
    elif ring_bits == 24:
        _pack24(values, np.frombuffer(out, "<u4").reshape(-1, 3))
    else:
        _pack20(values, np.frombuffer(out, "<u4").reshape(-1, 5))


def add_packed(total: Words, data: Packed, ring_bits: int) -> None:
    """Add the values that `pack` wrote to uint32 [N], modulo 2^32.

    Raises:
        ValueError: the lengths do not fit, or `ring_bits` is not 16, 20, 24 or 32.
    """
    _require_fit(len(total), len(data), ring_bits)
    np.add(total, _unpack(data, ring_bits), out=total)


def unpack_signed(out: NDArray[np.int32], data: Packed, ring_bits: int) -> tuple[int, int]:
    """The values that `pack` wrote as int32 [N], two's complement of `ring_bits`; gives the least and the largest.

    Raises:
        ValueError: the lengths do not fit, or `ring_bits` is not 16, 20, 24 or 32.
    """
    _require_fit(len(out), len(data), ring_bits)
    if not len(out):
        return 0, 0
    shift = 32 - ring_bits
    np.left_shift(_unpack(data, ring_bits), np.uint32(shift), out=out.view(np.uint32))
    np.right_shift(out, np.int32(shift), out=out)
    return int(out.min()), int(out.max())


def add_mask(part: Words, mask: Words, add: bool) -> None:  # noqa: FBT001  # the signature of the compiled one
    """Add a mask to uint32 [N], or take it away, modulo 2^32.

    Raises:
        ValueError: the lengths differ.
    """
    _require_equal(part, mask)
    (np.add if add else np.subtract)(part, mask, out=part)


def add_two_masks(part: Words, one: Words, two: Words, add_one: bool, add_two: bool) -> None:  # noqa: FBT001
    """`add_mask` of two: compiled, it saves a pass.

    Raises:
        ValueError: the lengths differ.
    """
    add_mask(part, one, add_one)
    add_mask(part, two, add_two)


def quantise(
    words: Words, update: NDArray[np.float32], fraction: float, clip: float, scale: float, largest: float
) -> bool:
    """Quantise float32 [N] with stochastic rounding (spec 07 §10): max(floor(clipped * scale + u), -largest).

    Args:
        words: uint32 [N]; comes as uniform bits, of which the high 24 are used, and goes as ring elements.
        update: what is quantised.
        fraction: the weight's share in (0, 1], multiplied in before clipping.
        clip: bound of a coordinate, above zero.
        scale: ring elements per unit.
        largest: L; clip * scale is L but for rounding.

    Returns:
        False where the update holds NaN or infinity: `words` is then of no use.

    Raises:
        ValueError: the lengths differ, or a value does not fit 31 bits.
    """
    _require_equal(words, update)
    if not (clip > 0 and clip * scale < 2**31 - 2 and 0 < largest < 2**31):
        raise ValueError("clip, scale and largest: expected positive values that fit 31 bits")
    values, uniform = np.empty(min(_TILE, len(words)), np.float64), np.empty(min(_TILE, len(words)), np.float64)
    for start in range(0, len(words), _TILE):
        part, out = update[start : start + _TILE], words[start : start + _TILE]
        value, u = values[: len(part)], uniform[: len(part)]
        with np.errstate(over="ignore", invalid="ignore"):
            doubtful = not np.isfinite(part @ part)
        if doubtful and not np.isfinite(part).all():
            return False
        np.right_shift(out, 8, out=out)
        np.copyto(u, out.view(np.int32))  # a plain conversion and one product cost less than a mixed product
        np.multiply(u, 2.0**-24, out=u)
        np.copyto(value, part)
        np.multiply(value, fraction, out=value)
        np.clip(value, -clip, clip, out=value)
        np.multiply(value, scale, out=value)
        np.add(value, u, out=value)
        np.floor(value, out=value)
        # rounded to just beyond -L; upwards that is less than what u stays below 1
        np.maximum(value, -largest, out=value)
        out.view(np.int32)[:] = value  # exact: whole numbers below 2^31
    return True


def mean(out: NDArray[np.float64], sums: NDArray[np.int32], clip: float, weight: float) -> None:
    """The mean update: sums * clip / weight in binary64, both roundings kept.

    Raises:
        ValueError: the lengths differ.
    """
    _require_equal(out, sums)
    np.copyto(out, sums)
    np.multiply(out, clip, out=out)
    np.divide(out, weight, out=out)


def advance(out: NDArray[np.float32], model: NDArray[np.float32], change: NDArray[np.float64]) -> None:
    """Model plus change in binary64, rounded to binary32.

    Raises:
        ValueError: the lengths differ.
    """
    _require_equal(out, model)
    _require_equal(out, change)
    np.add(model, change, out=out, dtype=np.float64, casting="same_kind")


def _require_fit(count: int, size: int, ring_bits: int) -> None:
    if ring_bits not in {16, 20, 24, 32}:
        raise ValueError(f"ring_bits is {ring_bits}, expected 16, 20, 24 or 32")
    if count % 8 or count * ring_bits != size * 8:
        raise ValueError(f"{count} elements of {ring_bits} bits, by eights, do not fill {size} bytes")


def _require_equal(one: NDArray[np.generic], other: NDArray[np.generic]) -> None:
    if len(one) != len(other):
        raise ValueError(f"a buffer has {len(other)} elements, expected {len(one)}")


def _unpack(data: Packed, ring_bits: int) -> Words:
    if ring_bits == 32:
        return np.frombuffer(data, "<u4")
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


def _unpack20(data: Packed, out: Words) -> None:
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


def _unpack24(data: Packed, out: Words) -> None:
    # A four-byte window at each third byte holds a value and one byte more; the last would reach beyond the data.
    if not len(out):
        return
    np.copyto(out[:-1], np.ndarray((len(out) - 1,), "<u4", buffer=data, strides=(3,)))
    np.bitwise_and(out, np.uint32(0xFFFFFF), out=out)
    out[-1] = int.from_bytes(data[-3:], "little")
