"""Operators that reduce dimensions, and softmax."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from plans.authoring.lowering.registry import Lowering, Value, lowers, onnx_type
from plans.errors import TraceError

aten = torch.ops.aten

Dims = int | Sequence[int] | None


def reduced(to: Lowering, kind: str, name: str, dims: Dims, *, keepdim: bool) -> str:
    """One reduction; no dimensions mean all of them."""
    axes = [dims] if isinstance(dims, int) else list(dims or [])
    return to.op(kind, name, to.graph.ints(*axes) if axes else None, keepdims=int(keepdim))


@lowers(aten.sum.dim_IntList, aten.sum.default)
def sum_(to: Lowering, value: Value, dims: Dims = None, keepdim: bool = False, **_options: object) -> str:  # noqa: FBT001, FBT002 - PyTorch's order
    """Sum; booleans are counted."""
    return reduced(to, "ReduceSum", to.cast(value, to.dtype), dims, keepdim=keepdim)


@lowers(aten.mean.dim, aten.mean.default)
def mean(to: Lowering, value: Value, dims: Dims = None, keepdim: bool = False, **_options: object) -> str:  # noqa: FBT001, FBT002 - PyTorch's order
    """Mean."""
    return reduced(to, "ReduceMean", to.cast(value, to.dtype), dims, keepdim=keepdim)


@lowers(aten.var_mean.correction)
def var_mean(
    to: Lowering,
    value: Value,
    dims: Dims = None,
    *,
    correction: float | None = 1,
    keepdim: bool = False,
) -> tuple[str, str]:
    """Variance (divided by the count less the correction) and mean."""
    return _variance(to, value, dims, correction, keepdim=keepdim), reduced(
        to, "ReduceMean", value.name, dims, keepdim=keepdim
    )


@lowers(aten.var.correction)
def var(to: Lowering, value: Value, dims: Dims = None, *, correction: float | None = 1, keepdim: bool = False) -> str:
    """Variance."""
    return _variance(to, value, dims, correction, keepdim=keepdim)


def _variance(to: Lowering, value: Value, dims: Dims, correction: float | None, *, keepdim: bool) -> str:
    off = to.op("Sub", value, reduced(to, "ReduceMean", value.name, dims, keepdim=True))
    square = to.op("Mul", off, off)
    less = 1 if correction is None else correction
    if less == 0:
        return reduced(to, "ReduceMean", square, dims, keepdim=keepdim)
    total = reduced(to, "ReduceSum", square, dims, keepdim=keepdim)
    return to.op("Div", total, to.op("Sub", _count(to, value, dims), to.scalar(less)))


def _count(to: Lowering, value: Value, dims: Dims) -> str:
    """How many elements a reduction takes together, as a float."""
    axes = [dims] if isinstance(dims, int) else list(dims or range(value.rank))
    sizes = to.op("Gather", to.op("Shape", value), to.graph.ints(*(axis % value.rank for axis in axes)), axis=0)
    return to.op("Cast", to.op("ReduceProd", sizes, keepdims=0), to=onnx_type(to.dtype))


@lowers(aten.linalg_vector_norm.default)
def vector_norm(
    to: Lowering,
    value: Value,
    order: float = 2,
    dims: Dims = None,
    keepdim: bool = False,  # noqa: FBT001, FBT002 - PyTorch's order
    **_options: object,
) -> str:
    """The 1- or 2-norm."""
    if order not in (1, 2):
        raise TraceError(f"norm of order {order} has no lowering; expected 1 or 2")
    return reduced(to, "ReduceL2" if order == 2 else "ReduceL1", value.name, dims, keepdim=keepdim)


@lowers(aten.amax.default, aten.max.default)
def amax(to: Lowering, value: Value, dims: Dims = None, keepdim: bool = False) -> str:  # noqa: FBT001, FBT002 - PyTorch's order
    """Largest."""
    return reduced(to, "ReduceMax", value.name, dims, keepdim=keepdim)


@lowers(aten.amin.default, aten.min.default)
def amin(to: Lowering, value: Value, dims: Dims = None, keepdim: bool = False) -> str:  # noqa: FBT001, FBT002 - PyTorch's order
    """Smallest."""
    return reduced(to, "ReduceMin", value.name, dims, keepdim=keepdim)


@lowers(aten.prod.dim_int, aten.prod.default)
def prod(to: Lowering, value: Value, dims: Dims = None, keepdim: bool = False, **_options: object) -> str:  # noqa: FBT001, FBT002 - PyTorch's order
    """Product."""
    return reduced(to, "ReduceProd", to.cast(value, to.dtype), dims, keepdim=keepdim)


@lowers(aten.any.dim, aten.any.default, aten.any.dims)
def any_(to: Lowering, value: Value, dims: Dims = None, keepdim: bool = False) -> str:  # noqa: FBT001, FBT002 - PyTorch's order
    """Whether any element is true."""
    counted = reduced(
        to, "ReduceMax", to.cast(to.cast(value, torch.bool), torch.int32, of=torch.bool), dims, keepdim=keepdim
    )
    return to.op("Cast", counted, to=onnx_type(torch.bool))


@lowers(aten.argmax.default)
def argmax(to: Lowering, value: Value, dim: int | None = None, keepdim: bool = False) -> str:  # noqa: FBT001, FBT002 - PyTorch's order
    """Index of the largest; of several equal ones, the first."""
    return _arg(to, "ArgMax", value, dim, keepdim=keepdim)


@lowers(aten.argmin.default)
def argmin(to: Lowering, value: Value, dim: int | None = None, keepdim: bool = False) -> str:  # noqa: FBT001, FBT002 - PyTorch's order
    """Index of the smallest; of several equal ones, the first."""
    return _arg(to, "ArgMin", value, dim, keepdim=keepdim)


def _arg(to: Lowering, kind: str, value: Value, dim: int | None, *, keepdim: bool) -> str:
    if dim is None:
        return to.op(kind, to.reshape(value, [-1]), axis=0, keepdims=0)
    return to.op(kind, value, axis=dim % max(value.rank, 1), keepdims=int(keepdim))


@lowers(aten.max.dim)
def max_dim(to: Lowering, value: Value, dim: int, keepdim: bool = False) -> tuple[str, str]:  # noqa: FBT001, FBT002 - PyTorch's order
    """Largest and its index."""
    return reduced(to, "ReduceMax", value.name, dim, keepdim=keepdim), _arg(to, "ArgMax", value, dim, keepdim=keepdim)


@lowers(aten.min.dim)
def min_dim(to: Lowering, value: Value, dim: int, keepdim: bool = False) -> tuple[str, str]:  # noqa: FBT001, FBT002 - PyTorch's order
    """Smallest and its index."""
    return reduced(to, "ReduceMin", value.name, dim, keepdim=keepdim), _arg(to, "ArgMin", value, dim, keepdim=keepdim)


@lowers(aten.cumsum.default)
def cumsum(to: Lowering, value: Value, dim: int, **_options: object) -> str:
    """Running sum."""
    return to.op("CumSum", to.cast(value, to.dtype), to.graph.constant(dim % value.rank, "int64"))


@lowers(aten._softmax.default)  # noqa: SLF001 - PyTorch's name
def softmax(to: Lowering, value: Value, dim: int, _half_to_float: bool) -> str:  # noqa: FBT001 - PyTorch's order
    """Softmax."""
    return to.op("Softmax", value, axis=dim % value.rank)


@lowers(aten._log_softmax.default)  # noqa: SLF001 - PyTorch's name
def log_softmax(to: Lowering, value: Value, dim: int, _half_to_float: bool) -> str:  # noqa: FBT001 - PyTorch's order
    """Logarithm of softmax."""
    return to.op("LogSoftmax", value, axis=dim % value.rank)
