"""From real numbers into the ring and back (spec 07 §9, §10)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from protocol.errors import RoundError

__all__ = ["QUANTISE_KEY_BYTES", "quantise", "signed_sum"]

QUANTISE_KEY_BYTES = 32
_TILE = 1 << 14  # float64 temporaries of a tile stay in cache


def quantise(
    update: NDArray[np.float32],
    tail: Sequence[float],
    *,
    weight_fraction: float,
    clip: float,
    largest_value: int,
    padded_length: int,
    rounding_key: bytes,
    weights_at: Collection[int] = (),
) -> NDArray[np.uint32]:
    """Quantise an update and its tail with stochastic rounding.

    Args:
        update: float32 [P + B], local minus checkpoint.
        tail: coordinates in [-1, 1] after the weight, each already a fraction of its bound and of the weight.
        weight_fraction: w / w_max in (0, 1]; scales the update and is itself the first tail coordinate.
        clip: bound of one coordinate.
        largest_value: L.
        padded_length: D; the elements after the tail are zero.
        rounding_key: 32 random bytes; an AES-256-CTR keystream of them gives the rounding, 4 bytes an element,
            the high 24 bits used.
        weights_at: positions in `tail` that hold a weight themselves: rounded to nearest, as the first one is.

    Returns:
        uint32 [D], two's complement.

    Raises:
        RoundError: the update holds NaN or infinity, or the weight is outside (0, 1].
    """
    if not 0 < weight_fraction <= 1:
        raise RoundError(f"a weight is a fraction of max_examples in (0, 1], got {weight_fraction}")
    out = np.zeros(padded_length, np.uint32)
    stream = Cipher(AES(rounding_key), CTR(bytes(16))).encryptor()
    randoms = np.empty(_TILE, np.uint32)
    zeros = bytes(4 * _TILE)
    values = np.empty(_TILE, np.float64)
    uniform = np.empty(_TILE, np.float64)
    scale = largest_value / clip
    for start in range(0, len(update), _TILE):
        part = update[start : start + _TILE]
        size = len(part)
        tile, u, r = values[:size], uniform[:size], randoms[:size]
        stream.update_into(memoryview(zeros)[: 4 * size], r.data.cast("B"))
        np.right_shift(r, 8, out=r)
        np.copyto(u, r.view(np.int32))  # a plain conversion and one product cost less than a mixed product
        np.multiply(u, 2.0**-24, out=u)
        np.copyto(tile, part)
        np.multiply(tile, weight_fraction, out=tile)
        if not np.isfinite(part @ part) and not np.isfinite(part).all():
            raise RoundError("the update holds NaN or infinity: training diverged, nothing was sent")
        _round_into(tile, u, clip, scale, largest_value, out[start : start + size])
    randomness = stream.update(bytes(4 * len(tail)))
    _quantise_tail(tail, weight_fraction, largest_value, randomness, weights_at, out[len(update) :])
    return out


def _round_into(
    values: NDArray[np.float64],
    uniform: NDArray[np.float64],
    clip: float,
    scale: float,
    largest_value: int,
    out: NDArray[np.uint32],
) -> None:
    np.clip(values, -clip, clip, out=values)
    np.multiply(values, scale, out=values)
    np.add(values, uniform, out=values)
    np.floor(values, out=values)
    if clip * scale > largest_value:  # rounded to just beyond L; upwards that is less than what u stays below 1
        np.maximum(values, -largest_value, out=values)
    out.view(np.int32)[:] = values  # exact: whole numbers below 2^31


def _quantise_tail(
    tail: Sequence[float],
    weight_fraction: float,
    largest_value: int,
    randomness: bytes,
    weights_at: Collection[int],
    out: NDArray[np.uint32],
) -> None:
    values = np.array([weight_fraction, *tail], np.float64)
    if not np.isfinite(values).all():
        raise RoundError("a metric is NaN or infinite: training diverged, nothing was sent")
    uniform = np.empty(len(values), np.float64)
    uniform[0] = 0.5
    uniform[1:] = (np.frombuffer(randomness, "<u4") >> 8) * 2.0**-24
    uniform[[1 + position for position in weights_at]] = 0.5
    _round_into(values, uniform, 1.0, float(largest_value), largest_value, out[: len(values)])


def signed_sum(ring: NDArray[np.uint32], ring_bits: int, *, survivors: int, largest_value: int) -> NDArray[np.int32]:
    """Ring elements as signed integers, checked against what honest peers can sum up to.

    `survivors` counts contributions and `largest_value` bounds one, where they are groups' sums (spec 08 §4).

    Raises:
        RoundError: a coordinate beyond survivors * L: somebody put in more than the protocol allows.
    """
    shift = 32 - ring_bits
    signed = (ring << np.uint32(shift)).view(np.int32)
    np.right_shift(signed, np.int32(shift), out=signed)
    bound = survivors * largest_value
    if len(signed) and (int(signed.max()) > bound or int(signed.min()) < -bound):
        raise RoundError(f"the sum is out of range: beyond {survivors} survivors times {largest_value}")
    return signed
