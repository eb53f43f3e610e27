"""Put traced steps into whole functions: vectors in, steps over batches, vectors out (spec 05 §4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import helper

from plans.authoring.flat_steps import vectors_through_scan
from plans.authoring.lowering import GraphBuilder, Lowering, Value, lower, onnx_type, port
from plans.authoring.steps import (
    batch_of_row,
    given_value,
    loop_over_rows,
    metrics_of_row,
    torch_type,
    vectors_through_loop,
)
from plans.authoring.vectors import Layout, unpacked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx

    from protocol.manifest import Port

__all__ = ["IR_VERSION", "OPSET", "evaluate_model", "predict_model", "train_model"]

OPSET = 18
"""Every runtime in use reads it: onnxruntime-web 1.30, onnxruntime-android and onnxruntime-objc included."""
IR_VERSION = 8

_OPEN = {"batches": ("steps", "batch"), "learning_rates": ("steps",), "metrics": ("steps",)}


def train_model(
    step: fx.GraphModule,
    layout: Layout,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    *,
    examples: int | None,
) -> bytes:
    """The `train` function: a step for each row of `batches`.

    Parameters, optimizer state and buffers go from step to step as tensors; of a large model as flat vectors.
    `examples` is the batch for which convolutions are made fast; None keeps the direct ones.
    """
    graph, body = GraphBuilder("_m"), GraphBuilder("_b", examples=examples)
    write = vectors_through_scan if layout.is_large else vectors_through_loop
    vectors = write(graph, body, step, layout, inputs[3 + layout.frozen_ports : -3])
    return _model(graph, "train", inputs, [(vectors[leaving.name], leaving) for leaving in outputs])


def evaluate_model(step: fx.GraphModule, layout: Layout, inputs: Sequence[Port], outputs: Sequence[Port]) -> bytes:
    """The `evaluate` function: metrics of each row of `batches`, so memory is bounded by one batch."""
    graph, body = GraphBuilder("_m"), GraphBuilder("_b")
    to = Lowering(graph)
    tensors = _fixed(to, layout)
    data, count = batch_of_row(body, inputs[2 + layout.frozen_ports : -1])
    judged = lower(step, body, [*tensors, *data])
    names = loop_over_rows(graph, body, [], [], [], metrics_of_row(body, judged, count))
    return _model(graph, "evaluate", inputs, [(names[-1], outputs[0])])


def predict_model(forward: fx.GraphModule, layout: Layout, inputs: Sequence[Port], outputs: Sequence[Port]) -> bytes:
    """The `predict` function: the model's outputs, without a Loop."""
    graph = GraphBuilder("_m")
    to = Lowering(graph)
    tensors = _fixed(to, layout)
    data = [given_value(given.name, given) for given in inputs[2 + layout.frozen_ports :]]
    result = lower(forward, graph, [*tensors, *data])[0]
    return _model(graph, "predict", inputs, [(result.name, outputs[0])])


def _fixed(to: Lowering, layout: Layout) -> list[Value]:
    """Every tensor of a model that is not trained here."""
    return [
        *unpacked(to, "theta", layout.parameters),
        *unpacked(to, "buffers", layout.buffers),
        *unpacked(to, "frozen", layout.frozen),
    ]


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
        given.name, onnx_type(torch_type(given.dtype)), [next(names) if dim == -1 else dim for dim in given.shape]
    )
