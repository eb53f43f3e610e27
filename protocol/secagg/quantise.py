"""From real numbers into the ring and back (spec 07 §9, §10)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from protocol.errors import RoundError
from protocol.secagg import passes
from protocol.secagg.prg import write_keystream

__all__ = ["QUANTISE_KEY_BYTES", "Quantised", "WholeNumbers", "signed_sum"]

QUANTISE_KEY_BYTES = 32


class Quantised:
    """An update and its tail as ring elements, quantised with stochastic rounding while they are read.

    Args:
        update: float32 [P + B], local minus checkpoint.
        tail: coordinates in [-1, 1] after the weight, each already a fraction of its bound and of the weight.
        weight_fraction: w / w_max in (0, 1]; scales the update and is itself the first tail coordinate.
        clip: bound of one coordinate.
        largest_value: L.
        rounding_key: 32 random bytes; an AES-256-CTR keystream of them gives the rounding, 4 bytes an element,
            the high 24 bits used.
        weights_at: positions in `tail` that hold a weight themselves: rounded to nearest, as the first one is.

    Raises:
        RoundError: a metric is NaN or infinite, or the weight is outside (0, 1].
    """

    def __init__(
        self,
        update: NDArray[np.float32],
        tail: Sequence[float],
        *,
        weight_fraction: float,
        clip: float,
        largest_value: int,
        rounding_key: bytes,
        weights_at: Collection[int] = (),
    ) -> None:
        if not 0 < weight_fraction <= 1:
            raise RoundError(f"a weight is a fraction of max_examples in (0, 1], got {weight_fraction}")
        self._update = np.require(update, np.float32, ("C", "A"))
        self._fraction, self._clip, self._largest = weight_fraction, clip, largest_value
        self._stream = _keystream(rounding_key, 0)
        randoms = _keystream(rounding_key, len(update)).update(bytes(4 * len(tail)))
        self._tail = _quantised_tail(tail, weight_fraction, largest_value, randoms, weights_at)
        self._at = 0

    def fill(self, out: NDArray[np.uint32]) -> None:
        """Write the next `len(out)` elements, at most TILE, in two's complement; zeros after the tail.

        Raises:
            RoundError: the update holds NaN or infinity.
        """
        part = self._update[self._at : self._at + len(out)]
        words, rest = out[: len(part)], out[len(part) :]
        write_keystream(self._stream, words.data.cast("B"))
        scale = self._largest / self._clip
        if not passes.quantise(words, part, self._fraction, self._clip, scale, self._largest):
            raise RoundError("the update holds NaN or infinity: training diverged, nothing was sent")
        if len(rest):
            after = self._at + len(part) - len(self._update)
            _copy(self._tail[after : after + len(rest)], rest)
        self._at += len(out)


class WholeNumbers:
    """Sums that are ring elements already, int32 [d], in two's complement."""

    def __init__(self, sums: NDArray[np.int32]) -> None:
        self._sums = sums.view(np.uint32)
        self._at = 0

    def fill(self, out: NDArray[np.uint32]) -> None:
        """Write the next `len(out)` elements; zeros behind the last."""
        _copy(self._sums[self._at : self._at + len(out)], out)
        self._at += len(out)


def signed_sum(
    packed: bytes | memoryview, out: NDArray[np.int32], ring_bits: int, *, survivors: int, largest_value: int
) -> None:
    """Packed ring elements as signed integers, int32 [N], checked against what honest peers can sum up to.

    `survivors` counts contributions and `largest_value` bounds one, where they are groups' sums (spec 08 §4).

    Raises:
        RoundError: a coordinate beyond survivors * L: somebody put in more than the protocol allows.
    """
    least, most = passes.unpack_signed(out, packed, ring_bits)
    bound = survivors * largest_value
    if most > bound or least < -bound:
        raise RoundError(f"the sum is out of range: beyond {survivors} survivors times {largest_value}")


def _keystream(key: bytes, element: int) -> CipherContext:
    """The keystream from an element on, four bytes each."""
    stream = Cipher(AES(key), CTR((element // 4).to_bytes(16, "big"))).encryptor()
    stream.update(bytes(4 * (element % 4)))
    return stream


def _copy(values: NDArray[np.uint32], out: NDArray[np.uint32]) -> None:
    out[: len(values)] = values
    out[len(values) :] = 0


def _quantised_tail(
    tail: Sequence[float], fraction: float, largest_value: int, randoms: bytes, weights_at: Collection[int]
) -> NDArray[np.uint32]:
    values = np.array([fraction, *tail], np.float64)
    if not np.isfinite(values).all():
        raise RoundError("a metric is NaN or infinite: training diverged, nothing was sent")
    uniform = np.empty(len(values), np.float64)
    uniform[0] = 0.5
    uniform[1:] = (np.frombuffer(randoms, "<u4") >> 8) * 2.0**-24
    uniform[[1 + position for position in weights_at]] = 0.5
    rounded = np.floor(np.clip(values, -1.0, 1.0) * float(largest_value) + uniform)
    return rounded.astype(np.int32).view(np.uint32)
