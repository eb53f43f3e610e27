"""Operators that read or write by index: gather, scatter, embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from plans.authoring.lowering.registry import Lowering, Value, lowers
from plans.authoring.lowering.shapes import filled
from plans.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Sequence

aten = torch.ops.aten


@lowers(aten.gather.default)
def gather(to: Lowering, value: Value, dim: int, index: Value, **_options: object) -> str:
    """Elements by index along a dimension."""
    return to.op("GatherElements", value, index, axis=dim % value.rank)


@lowers(aten.index_select.default)
def index_select(to: Lowering, value: Value, dim: int, index: Value) -> str:
    """Whole slices by index along a dimension."""
    return to.op("Gather", value, index, axis=dim % value.rank)


@lowers(aten.embedding.default)
def embedding(to: Lowering, table: Value, index: Value, *_options: object) -> str:
    """Rows of a table."""
    return to.op("Gather", table, index, axis=0)


@lowers(aten.scatter.value)
def scatter_value(to: Lowering, value: Value, dim: int, index: Value, fill: float) -> str:
    """One number written at indexes."""
    updates = to.op("Expand", to.scalar(fill), to.op("Shape", index))
    return to.op("ScatterElements", value, index, updates, axis=dim % value.rank)


@lowers(aten.scatter.src)
def scatter(to: Lowering, value: Value, dim: int, index: Value, source: Value) -> str:
    """Elements written at indexes."""
    return to.op("ScatterElements", value, index, source, axis=dim % value.rank)


@lowers(aten.scatter_add.default)
def scatter_add(to: Lowering, value: Value, dim: int, index: Value, source: Value) -> str:
    """Elements added at indexes."""
    return to.op("ScatterElements", value, index, source, axis=dim % value.rank, reduction="add")


@lowers(aten.index.Tensor)
def index_tensor(to: Lowering, value: Value, indices: Sequence[Value | None]) -> str:
    """value[:, i]: one index tensor at one place, or several that meet at the front."""
    places = [at for at, index in enumerate(indices) if index is not None]
    given = [index for index in indices if index is not None]
    if any(index.dtype == torch.bool for index in given):
        raise TraceError(
            "indexing by a boolean mask gives a size known only at run time; multiply by the mask instead"
        )
    if len(places) == 1:
        return to.op("Gather", value, given[0], axis=places[0])
    if places == list(range(len(places))):
        return to.op("GatherND", value, _joined(to, given))
    raise TraceError("indexing by several tensors with a slice before them has no lowering; index one by one")


@lowers(aten.index_put.default)
def index_put(
    to: Lowering,
    value: Value,
    indices: Sequence[Value | None],
    source: Value,
    accumulate: bool = False,  # noqa: FBT001, FBT002 - PyTorch's order
) -> str:
    """value[i, j] = source, or += with `accumulate`; the indexes stand at the front."""
    given = [index for index in indices if index is not None]
    if len(given) != len(indices) or any(index.dtype == torch.bool for index in given):
        raise TraceError(
            "writing by index needs whole-number indexes for the leading dimensions; with a mask write "
            "torch.where(mask, new, old) instead"
        )
    at = _joined(to, given)
    rest = to.op("Slice", to.op("Shape", value), to.graph.ints(len(given)), to.graph.ints(value.rank))
    head = to.op("Slice", to.op("Shape", at), to.graph.ints(0), to.graph.ints(-1))
    updates = to.op("Expand", source, to.op("Concat", head, rest, axis=0))
    return to.op("ScatterND", value, at, updates, reduction="add" if accumulate else "none")


def _joined(to: Lowering, indices: Sequence[Value]) -> str:
    """Index tensors side by side in a new last dimension, broadcast against each other."""
    if len(indices) == 1:
        return to.op("Unsqueeze", indices[0], to.graph.ints(-1))
    total = indices[0].name
    for index in indices[1:]:
        total = to.op("Add", total, index)
    shape = to.op("Shape", total)
    parts = [to.op("Expand", to.cast(index, torch.int64), shape) for index in indices]
    return to.op("Concat", *(to.op("Unsqueeze", part, to.graph.ints(-1)) for part in parts), axis=-1)


@lowers(aten.embedding_dense_backward.default)
def embedding_gradient(
    to: Lowering,
    gradient: Value,
    index: Value,
    rows: int,
    padding: int,
    scale_by_frequency: bool,  # noqa: FBT001 - PyTorch's order
) -> str:
    """Gradients of looked-up rows, added up per row of the table."""
    if scale_by_frequency:
        raise TraceError("Embedding(scale_grad_by_freq=True) has no lowering; leave it False")
    width = gradient.shape[-1]
    if width is None:
        raise TraceError("Embedding: the width of the table must be fixed")
    flat = to.op("Reshape", index, to.graph.ints(-1, 1))
    updates = to.op("Reshape", gradient, to.graph.ints(-1, width))
    if padding >= 0:
        kept = to.op("Not", to.op("Equal", flat, to.scalar(padding, index.dtype)))
        updates = to.op("Mul", updates, to.op("Cast", kept, to=1))
    return to.op("ScatterND", filled(to, [rows, width], 0), flat, updates, reduction="add")
