"""The table from PyTorch's core operators to ONNX, and what a lowering function is given.

A lowering function takes the running `Lowering`, then the operator's arguments: tensors and symbolic sizes as
`Value`, everything else as PyTorch has it. It returns the name of the value it made (a tuple for several).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from plans.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plans.authoring.lowering.graph import GraphBuilder

__all__ = ["LOWERINGS", "Lowering", "Value", "lowers", "numpy_type", "onnx_type"]

_ONNX_TYPES = {
    torch.float32: 1,
    torch.uint8: 2,
    torch.int32: 6,
    torch.int64: 7,
    torch.bool: 9,
    torch.float64: 11,
}
_NUMPY_TYPES = {
    torch.float32: np.float32,
    torch.uint8: np.uint8,
    torch.int32: np.int32,
    torch.int64: np.int64,
    torch.bool: np.bool_,
    torch.float64: np.float64,
}

LowerFunction = Callable[..., Any]
LOWERINGS: dict[object, LowerFunction] = {}


@dataclass(frozen=True)
class Value:
    """A tensor in the graph: its name, dtype, and shape with None for a dimension known only at run time."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | None, ...]

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)


def lowers(*operators: object) -> Callable[[LowerFunction], LowerFunction]:
    """Enter a function into the table under one or several operators."""

    def enter(function: LowerFunction) -> LowerFunction:
        for operator in operators:
            LOWERINGS[operator] = function
        return function

    return enter


@dataclass
class Lowering:
    """What a lowering function works with: the graph, and dtype and shape of the result PyTorch promises."""

    graph: GraphBuilder
    dtype: torch.dtype = torch.float32
    shape: tuple[int | None, ...] = ()

    def op(self, kind: str, *inputs: Value | str | None, **attributes: object) -> str:
        """Append a node; values may be given by name."""
        return self.graph.op(kind, *(_name(value) for value in inputs), **attributes)

    def scalar(self, value: complex, dtype: torch.dtype | None = None) -> str:
        """A constant of rank 0, of the result's dtype unless told."""
        return self.graph.constant(value, numpy_type(dtype or self.dtype))

    def cast(self, value: Value | str, to: torch.dtype, *, of: torch.dtype | None = None) -> str:
        """The value in another dtype; no node where it already has it."""
        have = value.dtype if isinstance(value, Value) else of
        if have == to:
            return _name(value) or ""
        return self.op("Cast", value, to=onnx_type(to))

    def operand(self, value: Any, dtype: torch.dtype) -> str:
        """A tensor or Python number as an operand of the given dtype."""
        if isinstance(value, Value):
            return self.cast(value, dtype)
        return self.scalar(value, dtype)

    def sizes(self, dims: Sequence[int | Value]) -> str:
        """An int64 vector of dimensions, some of which may be known only at run time."""
        if all(isinstance(dim, int) for dim in dims):
            return self.graph.ints(*dims)  # type: ignore[arg-type]
        axis = self.graph.ints(0)
        parts = [self.graph.ints(dim) if isinstance(dim, int) else self.op("Unsqueeze", dim, axis) for dim in dims]
        return self.op("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]

    def reshape(self, value: Value | str, dims: Sequence[int | Value]) -> str:
        """Reshape; one run-time dimension becomes -1, so no shape arithmetic runs in the graph."""
        unknown = [dim for dim in dims if not isinstance(dim, int)]
        source = self.origin(_name(value) or "", "Reshape")
        if len(unknown) == 1 and -1 not in dims:
            return self.op("Reshape", source, self.graph.ints(*(d if isinstance(d, int) else -1 for d in dims)))
        return self.op("Reshape", source, self.sizes(dims))

    def transpose(self, value: Value | str, permutation: Sequence[int]) -> str:
        """Transpose; two in a row become one, and one that changes nothing is left out."""
        name, order = _name(value) or "", list(permutation)
        node = self.graph.producer(name)
        if node is not None and node.op_type == "Transpose":
            before = self.graph.attribute(name, "perm")
            name, order = node.input[0], [before[axis] for axis in order]
        if order == sorted(order):
            return name
        return self.op("Transpose", name, perm=order)

    def origin(self, name: str, kind: str) -> str:
        """What went into the node of that kind that made `name`; `name` itself where another kind did."""
        node = self.graph.producer(name)
        return str(node.input[0]) if node is not None and node.op_type == kind else name


def onnx_type(dtype: torch.dtype) -> int:
    """The ONNX number of a dtype.

    Raises:
        TraceError: a dtype no plan uses, such as float16 or complex64.
    """
    if dtype not in _ONNX_TYPES:
        raise TraceError(
            f"dtype {dtype} is not used in plans; expected float32, float64, int32, int64, uint8 or bool"
        )
    return _ONNX_TYPES[dtype]


def numpy_type(dtype: torch.dtype) -> type[np.generic]:
    """NumPy's name of a dtype of plans."""
    return _NUMPY_TYPES[dtype]


def _name(value: Value | str | None) -> str | None:
    return value.name if isinstance(value, Value) else value
