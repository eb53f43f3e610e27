"""Walk a traced graph in order and write each operator by its lowering function."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from plans.authoring.explaining import instead_of
from plans.authoring.lowering.registry import LOWERINGS, Lowering, Value
from plans.authoring.places import of_node
from plans.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plans.authoring.lowering.graph import GraphBuilder

__all__ = ["lower"]


def lower(module: fx.GraphModule, graph: GraphBuilder, inputs: Sequence[Value]) -> list[Value]:
    """Write a traced module into `graph`; `inputs` stand for its placeholders in order. Gives its outputs.

    Raises:
        TraceError: an operator without a lowering; names it and the line of the model it came from.
    """
    known: dict[fx.Node, Any] = {}
    given = iter(inputs)
    to = Lowering(graph)
    for node in module.graph.nodes:
        if node.op == "placeholder":
            known[node] = next(given)
            if known[node].rank == 0:
                graph.scalars.add(known[node].name)
        elif node.op == "get_attr":
            known[node] = _constant(module, graph, node)
        elif node.op == "call_function":
            known[node] = _call(to, node, known)
        elif node.op == "output":
            return [_as_value(to, known[n] if isinstance(n, fx.Node) else n) for n in _flat(node.args[0])]
    raise TraceError("the traced graph has no output")


def _call(to: Lowering, node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    args = fx.node.map_arg(node.args, known.__getitem__)
    kwargs = fx.node.map_arg(node.kwargs, known.__getitem__)
    if node.target is operator.getitem:
        return args[0][args[1]]
    function = LOWERINGS.get(node.target)
    if function is None:
        raise TraceError(f"operator {node.target} has no lowering to ONNX{_where(node)}; {instead_of(node.target)}")
    meta = node.meta.get("val")
    if isinstance(meta, list | tuple):
        to.dtype = next(part.dtype for part in meta if part is not None)
        names = function(to, *args, **kwargs)
        return [_value(name, part) for name, part in zip(names, meta, strict=True)]
    like = _Like.of(meta)
    to.dtype, to.shape = like.dtype, like.shape
    try:
        return Value(function(to, *args, **kwargs), like.dtype, like.shape)
    except TraceError as error:
        raise TraceError(f"{error}{_where(node)}") from None


class _Like:
    """Dtype and shape that PyTorch promises for a result."""

    def __init__(self, dtype: torch.dtype, shape: tuple[int | None, ...]) -> None:
        self.dtype, self.shape = dtype, shape

    @classmethod
    def of(cls, meta: Any) -> _Like:
        """From a fake tensor or a symbolic number."""
        if isinstance(meta, torch.SymInt | int):
            return cls(torch.int64, ())
        if isinstance(meta, torch.SymFloat | float):
            return cls(torch.float32, ())
        if isinstance(meta, torch.SymBool | bool):
            return cls(torch.bool, ())
        return cls(meta.dtype, tuple(dim if isinstance(dim, int) else None for dim in meta.shape))


def _value(name: str | None, meta: Any) -> Value | None:
    if name is None or meta is None:
        return None
    like = _Like.of(meta)
    return Value(name, like.dtype, like.shape)


def _as_value(to: Lowering, found: Any) -> Value:
    if isinstance(found, Value):
        return found
    if isinstance(found, int | float):
        dtype = torch.float32 if isinstance(found, float) else torch.int64
        return Value(to.scalar(found, dtype), dtype, ())
    raise TraceError(f"the traced graph gives {type(found).__name__}, expected tensors")


def _constant(module: fx.GraphModule, graph: GraphBuilder, node: fx.Node) -> Value:
    tensor = getattr(module, str(node.target)).detach()
    return Value(graph.constant(tensor.cpu().numpy()), tensor.dtype, tuple(tensor.shape))


def _flat(nested: Any) -> list[Any]:
    if isinstance(nested, list | tuple):
        return [item for part in nested for item in _flat(part)]
    return [nested]


def _where(node: fx.Node) -> str:
    """For the author, never for the plan."""
    place = of_node(node)
    return f" ({place})" if place else ""
