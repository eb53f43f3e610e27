"""PyTorch's core operators as standard ONNX operators: `lower` walks a traced graph and fills a `GraphBuilder`."""

from plans.authoring.lowering import (  # noqa: F401 - each module enters its operators into the table
    convolutions,
    elementwise,
    indexing,
    matrices,
    pooling,
    random,
    reductions,
    shapes,
)
from plans.authoring.lowering.graph import GraphBuilder, port
from plans.authoring.lowering.random import coefficients_of_call, count_draws, draws_of_step
from plans.authoring.lowering.registry import Lowering, Value, onnx_type
from plans.authoring.lowering.walk import lower

__all__ = [
    "GraphBuilder",
    "Lowering",
    "Value",
    "coefficients_of_call",
    "count_draws",
    "draws_of_step",
    "lower",
    "onnx_type",
    "port",
]
