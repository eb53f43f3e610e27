"""Pooling and its gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from plans.authoring.lowering.registry import Lowering, Value, lowers
from plans.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Sequence

aten = torch.ops.aten

_MAX_ROW = 256
"""Longest row of windows for which counting by a square matrix is cheaper than indices."""


def _full(part: Sequence[int], spatial: int, default: Sequence[int]) -> list[int]:
    given = list(part) or list(default)
    return given * spatial if len(given) == 1 else given


@lowers(aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default)
def max_pool(
    to: Lowering,
    image: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,  # noqa: FBT001, FBT002 - PyTorch's order
) -> tuple[str, str]:
    """Largest of each window, and where it stood counted over the whole tensor (as ONNX counts, not as PyTorch)."""
    spatial = image.rank - 2
    if spatial < 2:
        raise TraceError("pooling: expected a batch of images, got one without a batch dimension")
    size = _full(kernel, spatial, ())
    return to.graph.ops(  # type: ignore[return-value]
        "MaxPool",
        image.name,
        outputs=2,
        kernel_shape=size,
        strides=_full(stride, spatial, size),
        pads=_full(padding, spatial, ()) * 2,
        dilations=_full(dilation, spatial, ()),
        ceil_mode=int(ceil_mode),
    )


@lowers(aten.max_pool2d_with_indices_backward.default, aten.max_pool3d_with_indices_backward.default)
def max_pool_gradient(to: Lowering, gradient: Value, image: Value, *rest: object) -> str:
    """Each output's gradient goes to the element that was the largest; overlapping windows add up.

    Where several elements are equally large the first gets it, in ONNX Runtime's MaxPool as in PyTorch.
    """
    indices = rest[-1]
    if not isinstance(indices, Value):
        raise TraceError("max pooling: its gradient needs the indices of its result")
    made = to.graph.producer(indices.name)
    if _side_by_side(gradient, image, *rest[:4]):
        result = _unpooled(to, gradient.name, image, gradient, made.output[0])
        to.graph.notes[result] = Unpooling(gradient, image, made.output[0])
        return result
    shape = to.op("Shape", image)
    empty = to.op("Expand", to.scalar(0), to.op("Reshape", to.op("Size", image), to.graph.ints(1)))
    flat_gradient = to.op("Reshape", gradient, to.graph.ints(-1))
    flat_indices = to.op("Reshape", indices, to.graph.ints(-1))
    overlapping = _overlapping(rest[0], rest[1])
    how = "add" if overlapping else "none"
    return to.op(
        "Reshape", to.op("ScatterElements", empty, flat_indices, flat_gradient, axis=0, reduction=how), shape
    )


@dataclass(frozen=True)
class Unpooling:
    """The parts of a pooling gradient, for the ReLU before it: masking the pooled side is cheaper, and the same."""

    gradient: Value
    image: Value
    pooled: str

    def where_positive(self, to: Lowering) -> str:
        """The gradient where the pooled value is above zero: elsewhere its whole window came out of ReLU as zero."""
        masked = to.op("Mul", self.gradient, to.op("Sign", self.pooled))
        return _unpooled(to, masked, self.image, self.gradient, self.pooled)


def _side_by_side(gradient: Value, image: Value, kernel: Any, stride: Any, padding: Any, dilation: Any) -> bool:
    """Whether square windows tile the image exactly, so that each element lies in one window."""
    size = kernel[0]
    square = image.rank == 4 and all(k == size for k in kernel) and list(stride or kernel) == list(kernel)
    if not square or any(padding) or any(d != 1 for d in dilation):
        return False
    (height, width), (rows, columns) = image.shape[2:], gradient.shape[2:]
    if height is None or width is None or rows is None or columns is None or size * width > _MAX_ROW:
        return False
    return (height, width) == (rows * size, columns * size)


def _unpooled(to: Lowering, gradient: str, image: Value, pooled_like: Value, pooled: str) -> str:
    """Gradient of pooling with windows side by side, without indices.

    The rows of one row of windows lie next to each other in memory, as one row of `size * width`. Products with
    matrices of small whole numbers repeat pooled values over their windows, and take from each hit those before it in
    its window: 1 is left of the first largest, zero or less of every other element. Both are exact.
    """
    columns = int(pooled_like.shape[3] or 0)
    size = int(image.shape[3] or 0) // columns
    spread, first_alone = _window_matrices(size, columns)
    rows = to.op("Reshape", image, to.graph.ints(-1, size * size * columns))
    repeat = to.graph.constant(spread)
    largest = to.op("MatMul", to.op("Reshape", pooled, to.graph.ints(-1, columns)), repeat)
    hits = to.op("Cast", to.op("Equal", rows, largest), to=1)
    first = to.op("Relu", to.op("MatMul", hits, to.graph.constant(first_alone)))
    each = to.op("MatMul", to.op("Reshape", gradient, to.graph.ints(-1, columns)), repeat)
    return to.op("Reshape", to.op("Mul", each, first), to.graph.ints(-1, *(int(dim or 0) for dim in image.shape[1:])))


def _window_matrices(size: int, columns: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """[columns, size * width]: window to its elements; [size * width] squared: element less those before it."""
    places = [
        [row * size * columns + window * size + at for row in range(size) for at in range(size)]
        for window in range(columns)
    ]
    length = size * size * columns
    spread, alone = np.zeros((columns, length), np.float32), np.eye(length, dtype=np.float32)
    for window, elements in enumerate(places):
        spread[window, elements] = 1
        for at, element in enumerate(elements):
            alone[element, elements[at + 1 :]] = -1
    return spread, alone


def _overlapping(kernel: object, stride: object) -> bool:
    sizes, steps = list(kernel), list(stride) or list(kernel)  # type: ignore[call-overload]
    return any(step < size for size, step in zip(sizes, steps, strict=False))


@lowers(aten.avg_pool2d.default, aten.avg_pool3d.default, aten.avg_pool1d.default)
def avg_pool(to: Lowering, image: Value, kernel: Sequence[int], *options: Any) -> str:
    """Mean of each window."""
    windows = _Averages.of(image, to.shape, kernel, *options)
    mean = to.op(
        "AveragePool",
        windows.padded(to, image.name),
        kernel_shape=windows.size,
        strides=windows.stride,
        pads=[0] * (2 * len(windows.size)),
    )
    factor = windows.factor(math.prod(windows.size))
    return mean if factor is None else to.op("Mul", mean, to.graph.constant(factor))


@lowers(aten.avg_pool2d_backward.default, aten.avg_pool3d_backward.default)
def avg_pool_gradient(to: Lowering, gradient: Value, image: Value, kernel: Sequence[int], *options: Any) -> str:
    """Each output's gradient shared equally by its window: a transposed convolution, channel by channel."""
    windows = _Averages.of(image, gradient.shape, kernel, *options)
    spatial = len(windows.size)
    channels = int(image.shape[1] or 0)
    # each channel by itself: channels become examples, so that one shared kernel of one channel serves all
    alone = to.op("Reshape", gradient, to.graph.ints(-1, 1, *windows.out))
    factor = windows.factor(1)
    if factor is not None:
        alone = to.op("Mul", alone, to.graph.constant(factor))
    weight = to.graph.constant(np.ones((1, 1, *windows.size), np.float32))
    spread = to.op("ConvTranspose", alone, weight, None, strides=windows.stride, pads=[0] * (2 * spatial))
    have = [
        (out - 1) * step + width for out, step, width in zip(windows.out, windows.stride, windows.size, strict=True)
    ]
    missing = [max(0, pad + size - got) for pad, size, got in zip(windows.padding, windows.image, have, strict=True)]
    if any(missing):
        spread = to.op(
            "Pad", spread, to.graph.ints(0, 0, *[0] * spatial, 0, 0, *missing), to.scalar(0, torch.float32)
        )
    ends = [pad + size for pad, size in zip(windows.padding, windows.image, strict=True)]
    if [got + more for got, more in zip(have, missing, strict=True)] != windows.image:
        axes = to.graph.ints(*range(2, 2 + spatial))
        spread = to.op("Slice", spread, to.graph.ints(*windows.padding), to.graph.ints(*ends), axes)
    return to.op("Reshape", spread, to.graph.ints(-1, channels, *windows.image))


@dataclass(frozen=True)
class _Averages:
    """Windows of an average pooling of fixed sizes: `divisor` is that of each window, or one for all."""

    image: list[int]
    out: list[int]
    size: list[int]
    stride: list[int]
    padding: list[int]
    counts_padding: bool
    divisor: int | None

    @classmethod
    def of(
        cls,
        image: Value,
        result: Sequence[int | None],
        kernel: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = (0,),
        ceil_mode: bool = False,  # noqa: FBT001, FBT002 - PyTorch's order
        count_include_pad: bool = True,  # noqa: FBT001, FBT002 - PyTorch's order
        divisor_override: int | None = None,
    ) -> _Averages:
        """From PyTorch's arguments; what `ceil_mode` adds shows in the result's shape."""
        del ceil_mode
        spatial = image.rank - 2
        sizes, out = image.shape[2:], result[2:]
        if spatial < 1 or any(dim is None for dim in (image.shape[1], *sizes, *out)):
            raise TraceError("average pooling: channels and spatial sizes must be fixed; only the batch may vary")
        size = _full(kernel, spatial, ())
        return cls(
            [int(dim or 0) for dim in sizes],
            [int(dim or 0) for dim in out],
            size,
            _full(stride, spatial, size),
            _full(padding, spatial, ()),
            count_include_pad,
            divisor_override,
        )

    def padded(self, to: Lowering, image: str) -> str:
        """The image with zeros around it, as far as the windows reach."""
        reach = [(out - 1) * step + width for out, step, width in zip(self.out, self.stride, self.size, strict=True)]
        after = [max(0, end - pad - size) for end, pad, size in zip(reach, self.padding, self.image, strict=True)]
        if not any(self.padding) and not any(after):
            return image
        pads = to.graph.ints(0, 0, *self.padding, 0, 0, *after)
        return to.op("Pad", image, pads, to.scalar(0, torch.float32))

    def factor(self, have: int) -> np.ndarray[Any, Any] | None:
        """`have` divided by each window's divisor, float32 [*out]; a scalar where all are alike, None for one."""
        if self.divisor is not None:
            divisors = np.full([1] * len(self.out), float(self.divisor))
        else:
            divisors = np.ones([1] * len(self.out))
            for axis, counts in enumerate(self._counts()):
                divisors = divisors * counts.reshape([-1 if at == axis else 1 for at in range(len(self.out))])
        factors = (have / divisors).astype(np.float32)
        if (factors == factors.flat[0]).all():
            return None if factors.flat[0] == 1 else np.asarray(factors.flat[0])
        return factors

    def _counts(self) -> list[np.ndarray[Any, Any]]:
        """Elements that count in each window, per dimension: those of the padded image, or of the image."""
        counts = []
        for image, out, size, stride, pad in zip(
            self.image, self.out, self.size, self.stride, self.padding, strict=True
        ):
            begin = np.arange(out) * stride - pad
            end = np.minimum(begin + size, image + pad)
            if not self.counts_padding:
                begin, end = np.maximum(begin, 0), np.minimum(end, image)
            counts.append((end - begin).astype(np.float64))
        return counts
