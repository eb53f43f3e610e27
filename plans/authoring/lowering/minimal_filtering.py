"""Minimal filtering: `step` neighbouring results of a filter of `kernel` taps by `step + kernel - 1` products.

    results = A @ ((G @ taps) * (B @ signal))

Toom's and Cook's product of polynomials read backwards (Winograd 1980, "Arithmetic Complexity of Computations";
Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks"): both factors are evaluated at points, and
interpolation through the products gives the coefficients. Fractions are exact until they become floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MOST_PRODUCTS", "Tiling", "filtering"]

Matrix = np.ndarray[Any, np.dtype[np.float64]]
Rational = list[list[Fraction]]

_POINTS = [Fraction(point) for point in ("0", "1", "-1", "2", "-2", "1/2", "-1/2")]
_FIVE = [Fraction(point) for point in ("0", "2/3", "-2/3", "3/2", "-3/2")]
"""Finite points in the order they are taken; the last is always infinity. Of about 3,000 sets of seven, drawn at
random, none rounded less in a simulation; of five, these round half as much as the first five of the seven."""

MOST_PRODUCTS = len(_POINTS) + 1
"""More points need larger numbers, and the rounding of float32 grows about fourfold with each."""


@cache
def filtering(step: int, kernel: int) -> tuple[Matrix, Matrix, Matrix]:
    """A [step, T], G [T, kernel] and B [T, T] with T = step + kernel - 1."""
    count = step + kernel - 1
    if min(step, kernel) < 1 or count > MOST_PRODUCTS:
        raise ValueError(f"{step} results of {kernel} taps need {count} products, expected 1 to {MOST_PRODUCTS}")
    points = _FIVE if count == len(_FIVE) + 1 else _POINTS[: count - 1]
    results, taps = (np.array(_powers(points, width), float) for width in (step, kernel))
    signal = np.array(_inverse(_powers(points, count)), float).T
    return results.T, taps, signal


def _powers(points: Sequence[Fraction], count: int) -> Rational:
    """Rows 1, p, p^2, ...; at infinity only the highest power counts."""
    finite = [[point**power for power in range(count)] for point in points]
    return [*finite, [Fraction(int(power == count - 1)) for power in range(count)]]


def _inverse(matrix: Rational) -> Rational:
    """By Gauss and Jordan, without rounding."""
    size = len(matrix)
    rows = [[*row, *(Fraction(int(at == other)) for other in range(size))] for at, row in enumerate(matrix)]
    for column in range(size):
        pivot = next(at for at in range(column, size) if rows[at][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [value / rows[column][column] for value in rows[column]]
        for at in range(size):
            if at != column:
                factor = rows[at][column]
                rows[at] = [value - factor * of for value, of in zip(rows[at], rows[column], strict=True)]
    return [row[size:] for row in rows]


@dataclass(frozen=True)
class Tiling:
    """One dimension of a convolution of stride 1, cut into tiles of `step` results each.

    The tiles overlap, the last may reach beyond the end and the border is padded with zeros: all of that lies in the
    matrices, so that no operator has to pad, cut or gather.
    """

    size: int
    kernel: int
    padding: int
    step: int

    @property
    def out(self) -> int:
        """Results."""
        return self.size + 2 * self.padding - self.kernel + 1

    @property
    def points(self) -> int:
        """Products of each tile."""
        return self.step + self.kernel - 1

    @property
    def tiles(self) -> int:
        """How many tiles cover the results."""
        return -(-self.out // self.step)

    @property
    def width(self) -> int:
        """Products of all tiles."""
        return self.points * self.tiles

    def spread(self) -> Matrix:
        """[points * tiles, size]: B of every tile."""
        _, _, signal = filtering(self.step, self.kernel)
        matrix = np.zeros((self.points, self.tiles, self.size))
        for tile in range(self.tiles):
            begin = tile * self.step - self.padding
            low, high = max(begin, 0), min(begin + self.points, self.size)
            if low < high:
                matrix[:, tile, low:high] = signal[:, low - begin : high - begin]
        return matrix.reshape(self.width, self.size)

    def gather(self) -> Matrix:
        """[out, points * tiles]: A of every tile."""
        results, _, _ = filtering(self.step, self.kernel)
        matrix = np.zeros((self.out, self.points, self.tiles))
        for tile in range(self.tiles):
            begin = tile * self.step
            rows = results[: self.out - begin]
            matrix[begin : begin + len(rows), :, tile] = rows
        return matrix.reshape(self.out, self.width)

    def taps(self) -> Matrix:
        """[points, kernel]: G, the same for every tile."""
        _, taps, _ = filtering(self.step, self.kernel)
        return taps
