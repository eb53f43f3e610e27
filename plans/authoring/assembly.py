"""Put traced steps into whole functions: vectors in, a Loop over batches, vectors out (spec 05 §4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from onnx import helper

from plans.authoring.lowering import (
    GraphBuilder,
    Lowering,
    Value,
    coefficients_of_call,
    count_draws,
    draws_of_step,
    lower,
    onnx_type,
    port,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx

    from protocol.manifest import Port

__all__ = ["IR_VERSION", "OPSET", "Layout", "evaluate_model", "predict_model", "train_model"]

OPSET = 18
"""Every runtime in use reads it: onnxruntime-web 1.30, onnxruntime-android and onnxruntime-objc included."""
IR_VERSION = 8

_TORCH = {
    "float32": torch.float32,
    "uint8": torch.uint8,
    "int32": torch.int32,
    "int64": torch.int64,
    "bool": torch.bool,
    "float64": torch.float64,
}
_OPEN = {"batches": ("steps", "batch"), "learning_rates": ("steps",), "metrics": ("steps",)}

Dims = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Shapes of the tensors that lie in each flat vector."""

    parameters: Sequence[Dims]
    optimizer_state: Sequence[Dims]
    buffers: Sequence[Dims]
    frozen: Sequence[Dims]

    @property
    def frozen_ports(self) -> int:
        """Ports that hold frozen values: one, or none where nothing is frozen."""
        return 1 if self.frozen else 0


def train_model(
    step: fx.GraphModule,
    layout: Layout,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    *,
    examples: int | None,
) -> bytes:
    """The `train` function: parameters, optimizer state and buffers go through a Loop, a row of `batches` each.

    `examples` is the batch for which convolutions are made fast; None keeps the direct ones.
    """
    graph, body = GraphBuilder("_m"), GraphBuilder("_b", examples=examples)
    to = Lowering(graph)
    moving = [*layout.parameters, *layout.optimizer_state, *layout.buffers]
    start = [
        *_unpacked(to, "theta", layout.parameters),
        *_unpacked(to, "optimizer_state", layout.optimizer_state),
        *_unpacked(to, "buffers", layout.buffers),
    ]
    frozen = _unpacked(to, "frozen", layout.frozen)
    state = [(f"_s{at}", dims) for at, dims in enumerate(moving)]
    carried = [Value(name, torch.float32, dims) for name, dims in state]
    data, count = _batch(body, inputs[3 + layout.frozen_ports : -3])
    rate = Value(body.op("Gather", "learning_rates", "_step", axis=0), torch.float32, ())
    draws = count_draws(step)
    if draws:
        coefficients_of_call(graph, _steps(graph), draws)
        body.draws = draws_of_step(body, draws)
    results = lower(step, body, [*carried, *frozen, *data, rate])
    after, judged = results[: len(moving)], results[len(moving) :]
    names = _loop(graph, body, start, state, after, _row(body, judged, count))
    first, second = len(layout.parameters), len(layout.parameters) + len(layout.optimizer_state)
    vectors = {
        "next_theta": _packed(to, names[:first], layout.parameters),
        "next_optimizer_state": _packed(to, names[first:second], layout.optimizer_state),
        "next_buffers": _packed(to, names[second:-1], layout.buffers),
        "metrics": names[-1],
    }
    return _model(graph, "train", inputs, [(vectors[leaving.name], leaving) for leaving in outputs])


def evaluate_model(step: fx.GraphModule, layout: Layout, inputs: Sequence[Port], outputs: Sequence[Port]) -> bytes:
    """The `evaluate` function: metrics of each row of `batches`, so memory is bounded by one batch."""
    graph, body = GraphBuilder("_m"), GraphBuilder("_b")
    to = Lowering(graph)
    tensors = _fixed(to, layout)
    data, count = _batch(body, inputs[2 + layout.frozen_ports : -1])
    judged = lower(step, body, [*tensors, *data])
    names = _loop(graph, body, [], [], [], _row(body, judged, count))
    return _model(graph, "evaluate", inputs, [(names[-1], outputs[0])])


def predict_model(forward: fx.GraphModule, layout: Layout, inputs: Sequence[Port], outputs: Sequence[Port]) -> bytes:
    """The `predict` function: the model's outputs, without a Loop."""
    graph = GraphBuilder("_m")
    to = Lowering(graph)
    tensors = _fixed(to, layout)
    data = [_value(given.name, given) for given in inputs[2 + layout.frozen_ports :]]
    result = lower(forward, graph, [*tensors, *data])[0]
    return _model(graph, "predict", inputs, [(result.name, outputs[0])])


def _fixed(to: Lowering, layout: Layout) -> list[Value]:
    """Every tensor of a model that is not trained here."""
    return [
        *_unpacked(to, "theta", layout.parameters),
        *_unpacked(to, "buffers", layout.buffers),
        *_unpacked(to, "frozen", layout.frozen),
    ]


def _unpacked(to: Lowering, vector: str, shapes: Sequence[Dims]) -> list[Value]:
    """Tensors of given shapes out of a flat vector."""
    if not shapes:
        return []
    sizes = [math.prod(dims) for dims in shapes]
    parts = (vector,) if len(sizes) == 1 else to.graph.ops("Split", vector, to.graph.ints(*sizes), outputs=len(sizes))
    return [
        Value(part if len(dims) == 1 else to.op("Reshape", part, to.graph.ints(*dims)), torch.float32, dims)
        for part, dims in zip(parts, shapes, strict=True)
    ]


def _packed(to: Lowering, names: Sequence[str], shapes: Sequence[Dims]) -> str:
    """The flat vector of tensors of given shapes; without any, a vector of size zero."""
    if not shapes:
        return to.graph.constant([], "float32")
    flat = [
        name if len(dims) == 1 else to.op("Reshape", name, to.graph.ints(-1))
        for name, dims in zip(names, shapes, strict=True)
    ]
    return flat[0] if len(flat) == 1 else to.op("Concat", *flat, axis=0)


def _batch(body: GraphBuilder, fields: Sequence[Port]) -> tuple[list[Value], str]:
    """One row of `batches` without its padding: the examples it names, and how many there are as float32 [1].

    Padding is dropped, not weighted by zero, so means, batch statistics and any loss of the author's own are exact.
    """
    row = body.op("Gather", "batches", "_step", axis=0)
    real = body.op("GreaterOrEqual", row, body.constant(0, "int64"))
    index = body.op("Compress", row, real, axis=0)
    data = [_value(body.op("Gather", field.name, index, axis=0), field) for field in fields]
    return data, body.op("Cast", body.op("Shape", index), to=1)


def _row(body: GraphBuilder, judged: Sequence[Value], count: str) -> str:
    """[examples, loss * examples, sum of each metric] of one batch."""
    axis = body.ints(0)
    loss, *sums = [body.op("Unsqueeze", value.name, axis) for value in judged]
    return body.op("Concat", count, body.op("Mul", loss, count), *sums, axis=0)


def _loop(
    graph: GraphBuilder,
    body: GraphBuilder,
    start: Sequence[Value],
    state: Sequence[tuple[str, Dims]],
    after: Sequence[Value],
    row: str,
) -> tuple[str, ...]:
    """A Loop over all rows of `batches`; gives the final state, then the rows of metrics."""
    leaving = [
        ("_going", port("_going_on", 9, [])),
        *((value.name, port(f"{name}_next", 1, dims)) for value, (name, dims) in zip(after, state, strict=True)),
        (row, port("_row", 1, ["columns"])),
    ]
    entering = [port("_step", 7, []), port("_going", 9, []), *(port(name, 1, dims) for name, dims in state)]
    inner = body.finish("step", entering, leaving)
    return graph.ops(
        "Loop",
        _steps(graph),
        graph.constant(True),
        *(value.name for value in start),
        outputs=len(start) + 1,
        body=inner,
    )


def _steps(graph: GraphBuilder) -> str:
    """How many rows `batches` has, int64 []."""
    return graph.op("Gather", graph.op("Shape", "batches"), graph.constant(0, "int64"), axis=0)


def _value(name: str, given: Port) -> Value:
    dims = tuple(None if dim == -1 else dim for dim in given.shape)
    return Value(name, _TORCH[given.dtype], dims)


def _model(graph: GraphBuilder, name: str, inputs: Sequence[Port], leaving: Sequence[tuple[str, Port]]) -> bytes:
    proto = graph.finish(
        name, [_info(given) for given in inputs], [(value, _info(given)) for value, given in leaving]
    )
    model = helper.make_model(
        proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="peerplan"
    )
    return bytes(model.SerializeToString(deterministic=True))


def _info(given: Port) -> Any:
    names = iter(_OPEN.get(given.name, ("examples",)))
    return port(
        given.name, onnx_type(_TORCH[given.dtype]), [next(names) if dim == -1 else dim for dim in given.shape]
    )
