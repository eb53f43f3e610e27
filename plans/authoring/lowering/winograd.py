"""Convolution of two dimensions with fewer multiplications, and both its gradients.

Rows and columns come first, then examples, then channels, so that every transform is a product with a small matrix
from the left and the multiplications themselves are one batched product of matrices [tiles * examples, channels].
Nothing is moved in between. The transforms of image, kernel and dL/dy are each made once and serve two results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from plans.authoring.lowering.minimal_filtering import MOST_PRODUCTS, Matrix, Tiling
from plans.authoring.lowering.registry import Lowering, Value, numpy_type

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Winograd", "worthwhile"]

_SWAPPED = [2, 3, 0, 1]
"""[examples, channels, rows, columns] to [rows, columns, examples, channels], and back."""

_MOVE = 20.0
"""What reading, packing or moving one element costs, in additions and multiplications at the processor's peak."""
_FAR = 40.0
"""What is added for an element that comes from and goes to memory, as transforms beyond `_NEAR_BYTES` do."""
_NEAR_BYTES = 8 << 20
_GAIN = 1.3
"""How many times less work is worth the larger rounding error and memory."""


@dataclass(frozen=True)
class Winograd:
    """One convolution: how its rows and columns are tiled, and its channels."""

    rows: Tiling
    columns: Tiling
    channels: int
    outputs: int

    def forward(self, to: Lowering, image: Value, weight: Value, bias: Value | None) -> str:
        """The convolution [N, outputs, rows, columns] of an image [N, channels, rows, columns]."""
        products = to.op("MatMul", self._image(to, image), self._taps(to, weight))
        result = self._shrunk(to, products, self.rows.gather(), self.columns.gather(), self.outputs, image)
        return to.transpose(result if bias is None else to.op("Add", result, bias), _SWAPPED)

    def image_gradient(self, to: Lowering, gradient: Value, weight: Value) -> str:
        """dL/dx: everything the other way round, by transposed matrices."""
        taps = to.transpose(self._taps(to, weight), [0, 1, 2, 4, 3])
        products = to.op("MatMul", self._gradient(to, gradient), taps)
        result = self._shrunk(to, products, self.rows.spread().T, self.columns.spread().T, self.channels, gradient)
        return to.transpose(result, _SWAPPED)

    def weight_gradient(self, to: Lowering, gradient: Value, image: Value) -> str:
        """dL/dw: products are summed over examples and columns of tiles by MatMul, over rows of tiles with G."""
        rows, columns = self.rows, self.columns
        left = to.transpose(self._image(to, image), [0, 1, 2, 4, 3])
        products = to.op("MatMul", left, self._gradient(to, gradient))
        over_rows = np.repeat(rows.taps(), rows.tiles, axis=0).T
        by_row = _product(to, over_rows, products, [rows.width, -1], gradient)
        taps = _product(to, columns.taps().T, by_row, [rows.kernel, columns.points, -1], gradient)
        count = rows.kernel * columns.kernel
        by_channel = to.op("Reshape", taps, to.graph.ints(count, self.channels, self.outputs))
        flat = to.op(
            "Reshape", to.transpose(by_channel, [1, 0, 2]), to.graph.ints(self.channels * count, self.outputs)
        )
        shape = to.graph.ints(self.outputs, self.channels, rows.kernel, columns.kernel)
        return to.op("Reshape", to.transpose(flat, [1, 0]), shape)

    def work(self, examples: int) -> float:
        """Of forward and both gradients for a batch, in the unit of `_MOVE` (constants: ADR 20)."""
        rows, columns, channels, outputs = self.rows, self.columns, self.channels, self.outputs
        tiles, both = columns.tiles * examples, channels * outputs
        products = (
            _work(tiles, channels, outputs)
            + _work(tiles, outputs, channels)
            + _work(channels, tiles, outputs)
            + _MOVE * (tiles * channels + both)  # of operands that are read transposed
        )
        taps = _work(rows.points, rows.kernel, columns.kernel * both)
        taps += rows.points * _work(columns.points, columns.kernel, both)
        image = self._transforms(channels * examples, rows.size, columns.size)
        result = self._transforms(outputs * examples, rows.out, columns.out)
        return rows.width * columns.points * products + 2 * taps + image + result

    def direct_work(self, examples: int) -> float:
        """The same by multiplying every pixel with every tap."""
        taps, places = self.rows.kernel * self.columns.kernel, self.rows.out * self.columns.out
        return 3.0 * taps * places * self.channels * (2 * self.outputs + _MOVE) * examples

    def _transforms(self, planes: int, height: int, width: int) -> float:
        """Work of images of that size to points and of as many from points."""
        tall, wide = self.rows.width, self.columns.width
        there = _work(tall, height, width * planes) + tall * _work(wide, width, planes)
        back = tall * _work(width, wide, planes) + _work(height, tall, width * planes)
        layout = 5 * _MOVE * height * width * planes
        far = 2 * _FAR * tall * wide * planes if 4 * tall * wide * planes > _NEAR_BYTES else 0
        return there + back + layout + far

    def _image(self, to: Lowering, image: Value) -> str:
        return self._grown(to, image, self.rows.spread(), self.columns.spread())

    def _gradient(self, to: Lowering, gradient: Value) -> str:
        return self._grown(to, gradient, self.rows.gather().T, self.columns.gather().T)

    def _grown(self, to: Lowering, value: Value, down: Matrix, across: Matrix) -> str:
        """[N, C, rows, columns] as [row points, row tiles, column points, column tiles * N, C]."""
        swapped = to.transpose(value, _SWAPPED)
        tall = _product(to, down, swapped, [down.shape[1], -1], value)
        wide = _product(to, across, tall, [down.shape[0], across.shape[1], -1], value)
        rows, columns = self.rows, self.columns
        return to.op("Reshape", wide, to.graph.ints(rows.points, rows.tiles, columns.points, -1, value.shape[1] or 0))

    def _shrunk(self, to: Lowering, products: str, down: Matrix, across: Matrix, channels: int, like: Value) -> str:
        """The same shape as [rows, columns, N, channels]."""
        narrow = _product(to, across, products, [self.rows.width, self.columns.width, -1], like)
        short = _product(to, down, narrow, [self.rows.width, -1], like)
        return to.op("Reshape", short, to.graph.ints(down.shape[0], across.shape[0], -1, channels))

    def _taps(self, to: Lowering, weight: Value) -> str:
        """The kernel at all points, [row points, 1, column points, channels, outputs]."""
        rows, columns = self.rows, self.columns
        count = rows.kernel * columns.kernel
        flat = to.op("Reshape", weight, to.graph.ints(self.outputs, self.channels * count))
        by_channel = to.op("Reshape", to.transpose(flat, [1, 0]), to.graph.ints(self.channels, count, self.outputs))
        tall = _product(to, rows.taps(), to.transpose(by_channel, [1, 0, 2]), [rows.kernel, -1], weight)
        wide = _product(to, columns.taps(), tall, [rows.points, columns.kernel, -1], weight)
        return to.op("Reshape", wide, to.graph.ints(rows.points, 1, columns.points, self.channels, self.outputs))


def worthwhile(image: Value, weight: Value, padding: Sequence[int], examples: int) -> Winograd | None:
    """The tiling with the least work for a convolution of two dimensions, stride 1, without dilation or groups.

    None where multiplying directly is about as fast, or where a size is open.
    """
    sizes = [*weight.shape, *image.shape[2:]]
    fixed = [size for size in sizes if size is not None]
    if len(fixed) != len(sizes):
        return None
    outputs, channels, *kernel, height, width = fixed
    choices = [
        Winograd(rows, columns, channels, outputs)
        for rows in _tilings(height, kernel[0], padding[0])
        for columns in _tilings(width, kernel[1], padding[1])
    ]
    best = min(choices, key=lambda choice: choice.work(examples), default=None)
    return best if best is not None and best.work(examples) * _GAIN <= best.direct_work(examples) else None


def _tilings(size: int, kernel: int, padding: int) -> list[Tiling]:
    """From small tiles to large; a kernel of one tap has nothing to save."""
    if kernel < 2:
        return []
    return [Tiling(size, kernel, padding, step) for step in range(2, MOST_PRODUCTS - kernel + 2)]


def _work(rows: int, inner: int, columns: int) -> float:
    """Of a product of matrices: the right one is packed."""
    return (2.0 * rows + _MOVE) * inner * columns


def _product(to: Lowering, matrix: Matrix, value: str, shape: Sequence[int], like: Value) -> str:
    """A constant matrix times the value in a given shape, of the dtype of `like`."""
    return to.op(
        "MatMul", to.graph.constant(matrix, numpy_type(like.dtype)), to.op("Reshape", value, to.graph.ints(*shape))
    )
