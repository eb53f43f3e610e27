"""Convolution and its gradients in ordinary operators: 1 to 3 spatial dimensions, strides, dilation, groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from plans.authoring.lowering.reductions import reduced
from plans.authoring.lowering.registry import Lowering, Value, lowers
from plans.authoring.lowering.winograd import Winograd, worthwhile
from plans.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Sequence

aten = torch.ops.aten

_FEW_CHANNELS = 8
"""Below this, a product per kernel place has too few columns to be fast."""


@dataclass(frozen=True)
class _Geometry:
    """Strides, padding and dilation per spatial dimension, and the number of groups."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def attributes(self) -> dict[str, object]:
        """As ONNX's Conv and ConvTranspose take them."""
        return {
            "strides": list(self.stride),
            "pads": [*self.padding, *self.padding],
            "dilations": list(self.dilation),
            "group": self.groups,
        }


def _geometry(rank: int, *parts: Sequence[int], groups: int) -> _Geometry:
    spatial = rank - 2
    full = [tuple(part) * spatial if len(part) == 1 else tuple(part) for part in parts]
    return _Geometry(full[0], full[1], full[2], groups)


@lowers(aten.convolution.default)
def convolution(
    to: Lowering,
    image: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,  # noqa: FBT001 - PyTorch's order
    output_padding: Sequence[int],
    groups: int,
) -> str:
    """Convolution, or transposed convolution."""
    geometry = _geometry(image.rank, stride, padding, dilation, groups=groups)
    if transposed:
        extra = list(output_padding) * (image.rank - 2 if len(output_padding) == 1 else 1)
        return to.op("ConvTranspose", image, weight, bias, output_padding=extra, **geometry.attributes())
    fast = _winograd(to, image, weight, geometry)
    if fast is not None:
        return fast.forward(to, image, weight, bias)
    return to.op("Conv", image, weight, bias, **geometry.attributes())


@lowers(aten.convolution_backward.default)
def convolution_backward(
    to: Lowering,
    gradient: Value,
    image: Value,
    weight: Value,
    _bias_sizes: object,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,  # noqa: FBT001 - PyTorch's order
    _output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[str | None, str | None, str | None]:
    """Gradients of image, weight and bias; None where not wanted."""
    geometry = _geometry(image.rank, stride, padding, dilation, groups=groups)
    if transposed:
        # the transpose of a transposed convolution is the convolution itself, with the roles of both sides exchanged
        of_image = to.op("Conv", gradient, weight, None, **geometry.attributes()) if wanted[0] else None
        of_weight = _weight_gradient(to, image, gradient, weight, geometry) if wanted[1] else None
    elif (fast := _winograd(to, image, weight, geometry)) is not None:
        of_image = fast.image_gradient(to, gradient, weight) if wanted[0] else None
        of_weight = fast.weight_gradient(to, gradient, image) if wanted[1] else None
    else:
        of_image = _image_gradient(to, gradient, image, weight, geometry) if wanted[0] else None
        of_weight = _weight_gradient(to, gradient, image, weight, geometry) if wanted[1] else None
    over = [axis for axis in range(image.rank) if axis != 1]
    of_bias = reduced(to, "ReduceSum", gradient.name, over, keepdim=False) if wanted[2] else None
    return of_image, of_weight, of_bias


def _winograd(to: Lowering, image: Value, weight: Value, geometry: _Geometry) -> Winograd | None:
    """The form with fewer multiplications, where it exists, is faster and is wanted."""
    plain = geometry.stride == geometry.dilation == (1, 1) and geometry.groups == 1
    examples = to.graph.examples
    return worthwhile(image, weight, geometry.padding, examples) if plain and examples is not None else None


def _spatial(value: Value) -> list[int]:
    dims = value.shape[2:]
    fixed = [dim for dim in dims if dim is not None]
    if len(fixed) != len(dims):
        raise TraceError("convolution: spatial sizes must be fixed; only the batch may vary")
    return fixed


def _image_gradient(to: Lowering, gradient: Value, image: Value, weight: Value, geometry: _Geometry) -> str:
    """dL/dx: transposed convolution of dL/dy; `output_padding` restores rows that the stride left over."""
    extra = [
        size - ((out - 1) * stride - 2 * pad + dilation * (kernel - 1) + 1)
        for size, out, stride, pad, dilation, kernel in zip(
            _spatial(image),
            _spatial(gradient),
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            _spatial(weight),
            strict=True,
        )
    ]
    return to.op("ConvTranspose", gradient, weight, None, output_padding=extra, **geometry.attributes())


def _weight_gradient(to: Lowering, gradient: Value, image: Value, weight: Value, geometry: _Geometry) -> str:
    """dL/dw[o, i, k] = sum over batch and places p of dL/dy[o, p] * x[i, p * stride + k * dilation - padding].

    One product of matrices per kernel place: each slice of the padded image is small enough to stay in cache.
    """
    kernel, places = _spatial(weight), _spatial(gradient)
    groups, per_group = geometry.groups, int(weight.shape[1] or 0)
    outputs = int(gradient.shape[1] or 0)
    spatial = len(kernel)
    padded, sizes = _padded(to, image.name, kernel, places, _spatial(image), geometry)
    # [N, C, *p] -> [groups, C/groups, N, *p], so that batch and places become the summed dimension; once, then cut
    left = _rows(to, gradient.name, groups, outputs // groups, places)
    split = to.op("Reshape", padded, to.graph.ints(-1, groups, per_group, *sizes))
    laid = to.op("Transpose", split, perm=[1, 2, 0, *range(3, 3 + spatial)])
    windows = []
    for place in _grid(kernel):
        window = laid
        # the last dimension first: its slices are shared by all places of the others, which then copy whole rows
        for axis in reversed(range(spatial)):
            start, stride = place[axis] * geometry.dilation[axis], geometry.stride[axis]
            end = start + (places[axis] - 1) * stride + 1
            if (start, end, stride) != (0, sizes[axis], 1):
                bounds = [to.graph.ints(at) for at in (start, end, 3 + axis, stride)]
                window = to.op("Slice", window, *bounds)
        windows.append(to.op("Reshape", window, to.graph.ints(groups, per_group, -1)))
    if per_group < _FEW_CHANNELS:
        # a product with few columns is slow: all windows side by side make one product with many
        side_by_side = windows[0] if len(windows) == 1 else to.op("Concat", *windows, axis=1)
        product = to.op("MatMul", left, to.op("Transpose", side_by_side, perm=[0, 2, 1]))
        by_place = to.op("Reshape", product, to.graph.ints(outputs, len(windows), per_group))
        return to.op(
            "Reshape", to.op("Transpose", by_place, perm=[0, 2, 1]), to.graph.ints(outputs, per_group, *kernel)
        )
    parts = [to.op("MatMul", left, to.op("Transpose", window, perm=[0, 2, 1])) for window in windows]
    stacked = (
        parts[0]
        if len(parts) == 1
        else to.op("Concat", *(to.op("Unsqueeze", part, to.graph.ints(3)) for part in parts), axis=3)
    )
    return to.op("Reshape", stacked, to.graph.ints(outputs, per_group, *kernel))


def _padded(
    to: Lowering, image: str, kernel: Sequence[int], places: Sequence[int], sizes: Sequence[int], geometry: _Geometry
) -> tuple[str, list[int]]:
    """The image with zeros as far as the kernel reaches, and its spatial sizes."""
    before = list(geometry.padding)
    after = [
        max(0, (count - 1) * stride + (width - 1) * dilation + 1 - size - pad)
        for count, stride, width, dilation, size, pad in zip(
            places, geometry.stride, kernel, geometry.dilation, sizes, before, strict=True
        )
    ]
    grown = [size + low + high for size, low, high in zip(sizes, before, after, strict=True)]
    if not any(before) and not any(after):
        return image, grown
    pads = to.graph.ints(0, 0, *before, 0, 0, *after)
    return to.op("Pad", image, pads, to.scalar(0, torch.float32)), grown


def _rows(to: Lowering, name: str, groups: int, channels: int, places: Sequence[int]) -> str:
    """[N, groups * channels, *places] as matrices [groups, channels, N * places]."""
    count = 1
    for size in places:
        count *= size
    split = to.op("Reshape", name, to.graph.ints(-1, groups, channels, count))
    return to.op("Reshape", to.op("Transpose", split, perm=[1, 2, 0, 3]), to.graph.ints(groups, channels, -1))


def _grid(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    places: list[tuple[int, ...]] = [()]
    for size in sizes:
        places = [(*place, at) for place in places for at in range(size)]
    return places
