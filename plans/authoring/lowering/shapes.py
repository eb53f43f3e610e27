"""Operators that move elements without changing them, those that make new tensors, and sizes known at run time."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from plans.authoring.lowering.registry import Lowering, Value, lowers
from plans.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Sequence

aten = torch.ops.aten
_END = 2**63 - 1


@lowers(aten.view.default, aten._unsafe_view.default, aten.reshape.default)  # noqa: SLF001 - PyTorch's name
def view(to: Lowering, value: Value, dims: Sequence[int | Value]) -> str:
    """The same elements in another shape."""
    if tuple(dims) == value.shape or (value.name in to.graph.repeated and tuple(dims[1:]) == value.shape[1:]):
        return value.name
    return to.reshape(value, dims)


@lowers(aten.permute.default)
def permute(to: Lowering, value: Value, dims: Sequence[int]) -> str:
    """Dimensions in another order."""
    return to.transpose(value, [dim % value.rank for dim in dims])


@lowers(aten.t.default)
def transpose_matrix(to: Lowering, value: Value) -> str:
    """A matrix with rows and columns exchanged; vectors stay."""
    return to.transpose(value, list(range(value.rank))[::-1])


@lowers(aten.transpose.int)
def transpose(to: Lowering, value: Value, first: int, second: int) -> str:
    """Two dimensions exchanged."""
    order = list(range(value.rank))
    order[first], order[second] = order[second], order[first]
    return to.transpose(value, order)


@lowers(aten.unsqueeze.default)
def unsqueeze(to: Lowering, value: Value, dim: int) -> str:
    """A new dimension of size 1."""
    return to.op("Unsqueeze", value, to.graph.ints(dim % (value.rank + 1)))


@lowers(aten.squeeze.dims, aten.squeeze.dim)
def squeeze(to: Lowering, value: Value, dims: int | Sequence[int]) -> str:
    """Without the given dimensions, where they have size 1."""
    wanted = [dims] if isinstance(dims, int) else dims
    axes = [dim % value.rank for dim in wanted if value.shape[dim % value.rank] == 1] if value.rank else []
    return to.op("Squeeze", value, to.graph.ints(*axes)) if axes else value.name


@lowers(aten.expand.default)
def expand(to: Lowering, value: Value, dims: Sequence[int | Value], **_implicit: object) -> str:
    """Dimensions of size 1 repeated; -1 leaves a dimension as it is (in ONNX: 1 does)."""
    kept = [1 if isinstance(dim, int) and dim == -1 else dim for dim in dims]
    if tuple(kept) == value.shape:
        return value.name
    result = to.op("Expand", value, to.sizes(kept))
    if len(kept) == 3 and value.shape == tuple(kept[1:]):
        to.graph.repeated[result] = value.name
    return result


@lowers(aten.copy.default)
def copy(to: Lowering, into: Value, source: Value, _non_blocking: bool = False) -> str:  # noqa: FBT001, FBT002 - PyTorch's order
    """What is left of a tensor after another was written over it: the other, in its shape and dtype."""
    given = to.cast(source, to.dtype)
    return given if source.shape == into.shape else to.op("Expand", given, to.op("Shape", into))


@lowers(aten.repeat.default)
def repeat(to: Lowering, value: Value, repeats: Sequence[int | Value]) -> str:
    """The whole tensor, several times along each dimension."""
    padded = to.reshape(value, [1] * (len(repeats) - value.rank) + list(_dims(to, value)))
    return to.op("Tile", padded, to.sizes(repeats))


@lowers(aten.cat.default)
def cat(to: Lowering, values: Sequence[Value], dim: int = 0) -> str:
    """Tensors one after another along a dimension; PyTorch's empty vectors are left out."""
    parts = [value for value in values if value.shape != (0,)]
    rank = parts[0].rank
    return to.op("Concat", *(to.cast(part, to.dtype) for part in parts), axis=dim % rank)


@lowers(aten.slice.Tensor)
def slice_(to: Lowering, value: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> str:
    """Every `step`-th element from start to end along a dimension."""
    begin = 0 if start is None else start
    stop = _END if end is None else end
    if begin == 0 and isinstance(stop, int) and stop == _END and step == 1:
        return value.name
    axes, steps = to.graph.ints(dim % value.rank), to.graph.ints(step)
    return to.op("Slice", value, to.sizes([begin]), to.sizes([stop]), axes, steps)


@lowers(aten.slice_scatter.default)
def slice_scatter(
    to: Lowering, value: Value, source: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> str:
    """A tensor with a slice of it replaced: what stands before, the new part, what stands after."""
    axis = dim % value.rank
    size, part = value.shape[axis], source.shape[axis]
    if step != 1 or not isinstance(start or 0, int) or size is None or part is None:
        if size is None and start in (None, 0) and isinstance(end, int) and end >= _END and step == 1:
            return source.name
        raise TraceError("writing into a slice needs fixed sizes and step 1")
    begin = min((start or 0) % size if (start or 0) < 0 else (start or 0), size)
    axes = to.graph.ints(axis)
    parts = []
    if begin:
        parts.append(to.op("Slice", value, to.graph.ints(0), to.graph.ints(begin), axes))
    parts.append(source.name)
    if begin + part < size:
        parts.append(to.op("Slice", value, to.graph.ints(begin + part), to.graph.ints(_END), axes))
    return parts[0] if len(parts) == 1 else to.op("Concat", *parts, axis=axis)


@lowers(aten.select_scatter.default)
def select_scatter(to: Lowering, value: Value, source: Value, dim: int, index: int) -> str:
    """A tensor with one element along a dimension replaced."""
    axis = dim % value.rank
    size = value.shape[axis]
    if size is None:
        raise TraceError("writing one element needs a fixed size of its dimension")
    grown = to.op("Unsqueeze", source, to.graph.ints(axis))
    dims = (*source.shape[:axis], 1, *source.shape[axis:])
    part = Value(grown, source.dtype, dims)
    return str(slice_scatter(to, value, part, axis, index % size, index % size + 1))


@lowers(aten.select.int)
def select(to: Lowering, value: Value, dim: int, index: int | Value) -> str:
    """One element along a dimension, which goes away."""
    at = index if isinstance(index, Value) else to.graph.constant(index, np.int64)
    return to.op("Gather", value, at, axis=dim % value.rank)


@lowers(aten.split_with_sizes.default)
def split(to: Lowering, value: Value, sizes: Sequence[int], dim: int = 0) -> tuple[str, ...]:
    """Parts of given sizes along a dimension."""
    return to.graph.ops("Split", value.name, to.graph.ints(*sizes), outputs=len(sizes), axis=dim % value.rank)


@lowers(aten.flip.default)
def flip(to: Lowering, value: Value, dims: Sequence[int]) -> str:
    """The order reversed along dimensions."""
    axes = [dim % value.rank for dim in dims]
    starts, ends = to.graph.ints(*[-1] * len(axes)), to.graph.ints(*[-_END] * len(axes))
    return to.op("Slice", value, starts, ends, to.graph.ints(*axes), starts)


@lowers(aten.constant_pad_nd.default)
def constant_pad(to: Lowering, value: Value, padding: Sequence[int], fill: float = 0) -> str:
    """A border of one value; PyTorch lists it from the last dimension backwards, a negative one cuts."""
    before, after = [0] * value.rank, [0] * value.rank
    for at in range(len(padding) // 2):
        before[value.rank - 1 - at], after[value.rank - 1 - at] = padding[2 * at], padding[2 * at + 1]
    return to.op("Pad", value, to.graph.ints(*before, *after), to.scalar(fill))


@lowers(aten.full.default)
def full(to: Lowering, dims: Sequence[int | Value], fill: Any, **_options: object) -> str:
    """A new tensor of one value."""
    return filled(to, dims, fill)


@lowers(aten.full_like.default)
def full_like(to: Lowering, value: Value, fill: Any, **_options: object) -> str:
    """A tensor of one value, in the shape of another."""
    return filled(to, _dims(to, value), fill)


@lowers(aten.zeros_like.default, aten.new_zeros.default)
def zeros_like(to: Lowering, value: Value, dims: Sequence[int | Value] | None = None, **_options: object) -> str:
    """Zeros."""
    return filled(to, _dims(to, value) if dims is None else dims, 0)


@lowers(aten.new_full.default)
def new_full(to: Lowering, _value: Value, dims: Sequence[int | Value], fill: Any, **_options: object) -> str:
    """A tensor of one value, of the dtype of another."""
    return filled(to, dims, fill)


@lowers(aten.empty.memory_format, aten.new_empty.default, aten.empty_permuted.default)
def empty(to: Lowering, *arguments: Any, **_options: object) -> str:
    """Memory that is about to be overwritten: zeros, so that the graph stays deterministic."""
    dims = next(argument for argument in arguments if not isinstance(argument, Value))
    return filled(to, dims, 0)


@lowers(aten.scalar_tensor.default)
def scalar_tensor(to: Lowering, value: Any, **_options: object) -> str:
    """A number as a tensor of rank 0."""
    return to.operand(value, to.dtype)


@lowers(aten.arange.start_step)
def arange(to: Lowering, start: Any, end: Any, step: Any = 1, **_options: object) -> str:
    """start, start + step, ... before end; a constant where all three are."""
    if not any(isinstance(part, Value) for part in (start, end, step)):
        return to.graph.constant(torch.arange(start, end, step, dtype=to.dtype).numpy())
    return to.op("Range", *(to.operand(part, to.dtype) for part in (start, end, step)))


def filled(to: Lowering, dims: Sequence[int | Value], fill: Any) -> str:
    """A tensor of one value; a scalar stays a constant, as ONNX broadcasts it."""
    if isinstance(fill, Value) or len(dims):
        number = to.operand(fill, to.dtype)
        return to.op("Expand", number, to.sizes(dims)) if len(dims) else number
    return to.scalar(fill)


def sizes_of(to: Lowering, value: Value) -> str:
    """The shape of a value as an int64 vector; a constant where all of it is known."""
    return to.op("Shape", value) if None in value.shape else to.graph.ints(*(dim or 0 for dim in value.shape))


def _dims(to: Lowering, value: Value) -> list[int | Value]:
    """The dimensions of a value; those known at run time are read from it."""
    return [dim if dim is not None else _size(to, value, axis) for axis, dim in enumerate(value.shape)]


def _size(to: Lowering, value: Value, axis: int) -> Value:
    at = to.graph.constant(axis, np.int64)
    return Value(to.op("Gather", to.op("Shape", value), at, axis=0), torch.int64, ())


@lowers(aten.sym_size.int)
def sym_size(to: Lowering, value: Value, dim: int) -> str:
    """A dimension known at run time."""
    return _size(to, value, dim % value.rank).name


@lowers(aten.sym_numel.default)
def sym_numel(to: Lowering, value: Value) -> str:
    """The number of elements."""
    return to.op("Size", value)


@lowers(torch.sym_max)
def sym_max(to: Lowering, left: Any, right: Any) -> str:
    """The larger of two sizes."""
    return to.op("Max", to.operand(left, torch.int64), to.operand(right, torch.int64))


@lowers(torch.sym_float)
def sym_float(to: Lowering, value: Value) -> str:
    """A size as a float."""
    return to.op("Cast", value, to=1)


def _enter_arithmetic(kind: str, function: Any) -> None:
    @lowers(function)
    def arithmetic(to: Lowering, left: Any, right: Any) -> str:
        if to.dtype not in (torch.int64, torch.float32):
            raise TraceError(f"sizes known at run time: {function.__name__} gives {to.dtype}")
        return to.op(kind, to.operand(left, to.dtype), to.operand(right, to.dtype))


for _kind, _function in {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.floordiv,  # sizes are never negative, where ONNX rounds the other way
    "Mod": operator.mod,
}.items():
    _enter_arithmetic(_kind, _function)


_enter_arithmetic("Div", operator.truediv)


@lowers(operator.neg)
def negative(to: Lowering, value: Value) -> str:
    """A size with the other sign."""
    return to.op("Neg", value)
