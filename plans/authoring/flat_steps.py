"""Training of a large model: flat vectors go from step to step through a Scan, so that little is in memory twice.

A Loop copies what it carries when it ends; a Scan of one step writes into what leaves the function. Within the step
each tensor of state is cut out when it is read. What is left once the next state is whole, the way of the parameters,
reads that state and the old parameters again from the flat vectors, so that no tensor is kept for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plans.authoring.lowering import GraphBuilder, Lowering, port
from plans.authoring.steps import step_on_row, steps_of_call
from plans.authoring.vectors import Dims, Layout, packed, size_of, sliced, unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import fx

    from plans.authoring.lowering import Value
    from protocol.manifest import Port

__all__ = ["vectors_through_scan"]

_FLOAT, _INT64 = 1, 7


def vectors_through_scan(
    graph: GraphBuilder, body: GraphBuilder, step: fx.GraphModule, layout: Layout, fields: Sequence[Port]
) -> dict[str, str]:
    """What leaves `train`, by port."""
    to = Lowering(body)
    nought = body.op("Mul", "_step", body.ints(0))
    parameters = unpacked(to, "_theta", layout.parameters)
    state = sliced(to, "_optimizer_state", layout.optimizer_state, nought=nought)
    buffers = unpacked(to, "_buffers", layout.buffers)
    frozen = unpacked(Lowering(graph), "frozen", layout.frozen)
    after, row = step_on_row(graph, body, step, ([*parameters, *state, *buffers], frozen), fields)
    names = [value.name for value in after]
    first, second = len(parameters), len(parameters) + len(state)
    made = {
        "theta": packed(to, names[:first], layout.parameters),
        "optimizer_state": packed(to, names[first:second], layout.optimizer_state),
        "buffers": packed(to, names[second:], layout.buffers),
    }
    if len(state) > 1:
        again = [
            *sliced(to, made["optimizer_state"], layout.optimizer_state, nought=nought),
            *sliced(to, "_theta", layout.parameters, nought=nought),
        ]
        body.read_again(
            _instead([*after[first:second], *parameters], again),
            after=[made["optimizer_state"], made["buffers"], row],
        )
    shapes = {"theta": layout.parameters, "optimizer_state": layout.optimizer_state, "buffers": layout.buffers}
    return _scan(graph, body, {role: of for role, of in shapes.items() if of}, made, row)


def _instead(before: Sequence[Value], again: Sequence[Value]) -> Mapping[str, str]:
    """A model's only parameter, if it is flat, is the whole vector, which is there anyway."""
    return {
        old.name: new.name for old, new in zip(before, again, strict=True) if old.name not in ("_theta", new.name)
    }


def _scan(
    graph: GraphBuilder, body: GraphBuilder, shapes: Mapping[str, Sequence[Dims]], made: Mapping[str, str], row: str
) -> dict[str, str]:
    """A Scan over the numbers of all rows of `batches`; vectors that are empty stay outside."""
    sizes = {role: size_of(of) for role, of in shapes.items()}
    entering = [*(port(f"_{role}", _FLOAT, [size]) for role, size in sizes.items()), port("_step", _INT64, [])]
    leaving = [
        *((made[role], port(_port_name(body, made[role], role), _FLOAT, [size])) for role, size in sizes.items()),
        (row, port("_row", _FLOAT, ["columns"])),
    ]
    numbers = graph.op("Range", graph.constant(0, "int64"), steps_of_call(graph), graph.constant(1, "int64"))
    *vectors, rows = graph.ops(
        "Scan",
        *sizes,
        numbers,
        outputs=len(sizes) + 1,
        body=body.finish("step", entering, leaving),
        num_scan_inputs=1,
    )
    none = {f"next_{role}": graph.constant([], "float32") for role in made if role not in sizes}
    return {f"next_{role}": vector for role, vector in zip(sizes, vectors, strict=True)} | none | {"metrics": rows}


def _port_name(body: GraphBuilder, value: str, role: str) -> str:
    """A vector that is read on leaves under its own name, as another would be a copy."""
    return value if body.producer(value) is not None else f"_next_{role}"
