"""A step on each row of `batches`: its examples, its metrics, and the Loop that takes tensors through all steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from plans.authoring.lowering import (
    GraphBuilder,
    Lowering,
    Value,
    coefficients_of_call,
    count_draws,
    draws_of_step,
    lower,
    port,
)
from plans.authoring.vectors import Dims, Layout, packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx

    from protocol.manifest import Port

__all__ = [
    "batch_of_row",
    "given_value",
    "loop_over_rows",
    "metrics_of_row",
    "step_on_row",
    "steps_of_call",
    "torch_type",
    "vectors_through_loop",
]

_TORCH = {
    "float32": torch.float32,
    "uint8": torch.uint8,
    "int32": torch.int32,
    "int64": torch.int64,
    "bool": torch.bool,
    "float64": torch.float64,
}


def vectors_through_loop(
    graph: GraphBuilder, body: GraphBuilder, step: fx.GraphModule, layout: Layout, fields: Sequence[Port]
) -> dict[str, str]:
    """What leaves `train`, by port: tensors go round a Loop and are packed into the flat vectors once at the end."""
    to = Lowering(graph)
    moving = [*layout.parameters, *layout.optimizer_state, *layout.buffers]
    start = [
        *unpacked(to, "theta", layout.parameters),
        *unpacked(to, "optimizer_state", layout.optimizer_state),
        *unpacked(to, "buffers", layout.buffers),
    ]
    frozen = unpacked(to, "frozen", layout.frozen)
    state = [(f"_s{at}", dims) for at, dims in enumerate(moving)]
    carried = [Value(name, torch.float32, dims) for name, dims in state]
    after, row = step_on_row(graph, body, step, (carried, frozen), fields)
    names = loop_over_rows(graph, body, start, state, after, row)
    first, second = len(layout.parameters), len(layout.parameters) + len(layout.optimizer_state)
    return {
        "next_theta": packed(to, names[:first], layout.parameters),
        "next_optimizer_state": packed(to, names[first:second], layout.optimizer_state),
        "next_buffers": packed(to, names[second:-1], layout.buffers),
        "metrics": names[-1],
    }


def step_on_row(
    graph: GraphBuilder,
    body: GraphBuilder,
    step: fx.GraphModule,
    tensors: tuple[Sequence[Value], Sequence[Value]],
    fields: Sequence[Port],
) -> tuple[list[Value], str]:
    """Write one step on the row numbered `_step`; `tensors` are those that move and those that are frozen.

    Gives the moving tensors after it, and the row of metrics.
    """
    moving, frozen = tensors
    data, count = batch_of_row(body, fields)
    rate = Value(body.op("Gather", "learning_rates", "_step", axis=0), torch.float32, ())
    draws = count_draws(step)
    if draws:
        coefficients_of_call(graph, steps_of_call(graph), draws)
        body.draws = draws_of_step(body, draws)
    results = lower(step, body, [*moving, *frozen, *data, rate])
    return results[: len(moving)], metrics_of_row(body, results[len(moving) :], count)


def batch_of_row(body: GraphBuilder, fields: Sequence[Port]) -> tuple[list[Value], str]:
    """One row of `batches` without its padding: the examples it names, and how many there are as float32 [1].

    Padding is dropped, not weighted by zero, so means, batch statistics and any loss of the author's own are exact.
    """
    row = body.op("Gather", "batches", "_step", axis=0)
    real = body.op("GreaterOrEqual", row, body.constant(0, "int64"))
    index = body.op("Compress", row, real, axis=0)
    data = [given_value(body.op("Gather", field.name, index, axis=0), field) for field in fields]
    return data, body.op("Cast", body.op("Shape", index), to=1)


def metrics_of_row(body: GraphBuilder, judged: Sequence[Value], count: str) -> str:
    """[examples, loss * examples, sum of each metric] of one batch."""
    axis = body.ints(0)
    loss, *sums = [body.op("Unsqueeze", value.name, axis) for value in judged]
    return body.op("Concat", count, body.op("Mul", loss, count), *sums, axis=0)


def loop_over_rows(
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
        steps_of_call(graph),
        graph.constant(True),
        *(value.name for value in start),
        outputs=len(start) + 1,
        body=inner,
    )


def steps_of_call(graph: GraphBuilder) -> str:
    """How many rows `batches` has, int64 []."""
    return graph.op("Gather", graph.op("Shape", "batches"), graph.constant(0, "int64"), axis=0)


def torch_type(dtype: str) -> torch.dtype:
    """PyTorch's dtype of a port's."""
    return _TORCH[dtype]


def given_value(name: str, given: Port) -> Value:
    """What a graph's input of a port's shape is within it; -1 becomes a dimension known at run time."""
    dims = tuple(None if dim == -1 else dim for dim in given.shape)
    return Value(name, torch_type(given.dtype), dims)
