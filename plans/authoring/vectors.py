"""Flat vectors and the tensors that lie in them, as nodes of a graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from plans.authoring.lowering import Lowering, Value
from plans.large_models import are_large

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Dims", "Layout", "packed", "size_of", "sliced", "unpacked"]

Dims = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Shapes of the tensors that lie in each flat vector."""

    parameters: Sequence[Dims]
    optimizer_state: Sequence[Dims]
    buffers: Sequence[Dims]
    frozen: Sequence[Dims]

    @property
    def is_large(self) -> bool:
        """Whether parameters and buffers are those of a large model."""
        return are_large(size_of(self.parameters) + size_of(self.buffers))

    @property
    def frozen_ports(self) -> int:
        """Ports that hold frozen values: one, or none where nothing is frozen."""
        return 1 if self.frozen else 0


def size_of(shapes: Sequence[Dims]) -> int:
    """How many numbers tensors of these shapes hold together."""
    return sum(map(math.prod, shapes))


def unpacked(to: Lowering, vector: str, shapes: Sequence[Dims]) -> list[Value]:
    """Tensors of given shapes out of a flat vector, all made by one node."""
    if not shapes:
        return []
    sizes = [math.prod(dims) for dims in shapes]
    parts = (vector,) if len(sizes) == 1 else to.graph.ops("Split", vector, to.graph.ints(*sizes), outputs=len(sizes))
    return [_shaped(to, part, dims) for part, dims in zip(parts, shapes, strict=True)]


def sliced(to: Lowering, vector: str, shapes: Sequence[Dims], *, nought: str) -> list[Value]:
    """The same, each by a node of its own that need not run before the tensor is read.

    `nought` is int64 [1], zero, and known only at run time: between constant bounds ONNX Runtime would make one Split
    of all these nodes, which copies the whole vector at once.
    """
    starts = accumulate((math.prod(dims) for dims in shapes), initial=0)
    return [
        _shaped(to, _between(to, vector, start, start + math.prod(dims), nought), dims)
        for start, dims in zip(starts, shapes, strict=False)
    ]


def packed(to: Lowering, names: Sequence[str], shapes: Sequence[Dims]) -> str:
    """The flat vector of tensors of given shapes; without any, a vector of size zero."""
    if not shapes:
        return to.graph.constant([], "float32")
    flat = [
        name if len(dims) == 1 else to.op("Reshape", name, to.graph.ints(-1))
        for name, dims in zip(names, shapes, strict=True)
    ]
    return flat[0] if len(flat) == 1 else to.op("Concat", *flat, axis=0)


def _between(to: Lowering, vector: str, start: int, end: int, nought: str) -> str:
    graph = to.graph
    return graph.op("Slice", vector, graph.op("Add", graph.ints(start), nought), graph.ints(end), graph.ints(0))


def _shaped(to: Lowering, part: str, dims: Dims) -> Value:
    return Value(part if len(dims) == 1 else to.op("Reshape", part, to.graph.ints(*dims)), torch.float32, dims)
