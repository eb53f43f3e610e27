"""What a node runs: standard operators from one list, bounded sizes, no files, the declared ports (spec 05 §5).

Every byte is treated as hostile; only `UnsafePlanError` comes out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no type information
from onnx import checker

from plans.errors import UnsafePlanError
from plans.limits import MAX_CONSTANT_BYTES, MAX_DEPTH, MAX_GRAPH_BYTES, MAX_NODES, MAX_RANK
from plans.operators import ALLOWED
from plans.ports import Ports, evaluate_ports, predict_ports, train_ports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plans.bundle import Plan
    from protocol.manifest import Function, PlanManifest, Port

__all__ = ["validate", "validate_graph"]

_ITEM_BYTES = {1: 4, 2: 1, 6: 4, 7: 8, 9: 1, 11: 8}
_DTYPES = {"float32": 1, "uint8": 2, "int32": 6, "int64": 7, "bool": 9, "float64": 11}
_ATTRIBUTES = frozenset(
    {
        onnx.AttributeProto.FLOAT,
        onnx.AttributeProto.INT,
        onnx.AttributeProto.STRING,
        onnx.AttributeProto.TENSOR,
        onnx.AttributeProto.GRAPH,
        onnx.AttributeProto.FLOATS,
        onnx.AttributeProto.INTS,
        onnx.AttributeProto.STRINGS,
    }
)
_IR_VERSIONS = range(7, 11)


def validate(plan: Plan) -> None:
    """Check every function of a plan against what a node runs.

    Raises:
        UnsafePlanError: the first rule a graph breaks; names the function, the rule and what was found.
    """
    for kind, function in plan.manifest.functions.items():
        what = f"plan {plan.manifest.name}, function {kind}"
        _check_declared(plan.manifest, kind, function, what)
        validate_graph(plan.blobs[function.graph], function, opset=plan.manifest.opset, what=what)


def validate_graph(data: bytes, function: Function, *, opset: int, what: str) -> None:
    """Check the ONNX bytes of one function against its declared ports and the rules for every graph.

    Raises:
        UnsafePlanError: the first rule broken.
    """
    if len(data) > MAX_GRAPH_BYTES:
        raise UnsafePlanError(f"{what}: {len(data)} bytes of graph, at most {MAX_GRAPH_BYTES} are run")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError, ValueError) as error:
        raise UnsafePlanError(f"{what}: no ONNX model: {error}") from None
    _check_model(model, opset, what)
    _Rules(what).check(model.graph, depth=1)
    _check_ports(model.graph.input, function.inputs, f"{what}: input")
    _check_ports(model.graph.output, function.outputs, f"{what}: output")
    try:
        checker.check_model(model)
    except (checker.ValidationError, ValueError, RuntimeError, TypeError) as error:
        raise UnsafePlanError(
            f"{what}: no valid ONNX: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from None


def _check_declared(manifest: PlanManifest, kind: str, function: Function, what: str) -> None:
    """The ports in the manifest are those its own counts and fields ask for."""
    expected = _expected_ports(manifest, kind, function)
    if expected is not None and (function.inputs, function.outputs) != expected:
        raise UnsafePlanError(f"{what}: declares other ports than its fields and vectors ask for")


def _expected_ports(manifest: PlanManifest, kind: str, function: Function) -> Ports | None:
    metrics = len(manifest.metrics)
    if kind == "train":
        return train_ports(
            manifest.data_fields,
            parameter_count=manifest.parameter_count,
            optimizer_count=manifest.optimizer_count,
            buffer_count=manifest.buffer_count,
            metric_count=metrics,
            frozen_count=manifest.frozen_count,
        )
    counts = {
        "parameter_count": manifest.parameter_count,
        "buffer_count": manifest.buffer_count,
        "frozen_count": manifest.frozen_count,
    }
    if kind == "evaluate":
        return evaluate_ports(manifest.data_fields, metric_count=metrics, **counts)
    if kind == "predict" and len(function.outputs) == 1:
        return predict_ports(manifest.inputs, function.outputs[0], **counts)
    raise UnsafePlanError(f"plan {manifest.name}: function {kind} with {len(function.outputs)} outputs is not run")


def _check_model(model: Any, opset: int, what: str) -> None:
    if model.ir_version not in _IR_VERSIONS:
        raise UnsafePlanError(
            f"{what}: IR version {model.ir_version}, expected {_IR_VERSIONS[0]} to {_IR_VERSIONS[-1]}"
        )
    imports = [(entry.domain, entry.version) for entry in model.opset_import]
    if imports != [("", opset)]:
        raise UnsafePlanError(f"{what}: opset imports {imports[:4]}, expected [('', {opset})]")
    if len(model.functions):
        raise UnsafePlanError(f"{what}: model-local functions are not run, got {len(model.functions)}")
    if len(model.training_info):
        raise UnsafePlanError(f"{what}: training_info is not run")


class _Rules:
    """The rules for one graph and those inside it, with one count of nodes for all."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._nodes = 0

    def check(self, graph: Any, *, depth: int) -> None:
        """Check one graph; `depth` counts the graphs around it, itself included."""
        if depth > MAX_DEPTH:
            raise UnsafePlanError(f"{self._what}: graphs nest deeper than {MAX_DEPTH}")
        self._nodes += len(graph.node)
        if self._nodes > MAX_NODES:
            raise UnsafePlanError(f"{self._what}: more than {MAX_NODES} nodes")
        if len(graph.sparse_initializer) or len(graph.quantization_annotation):
            raise UnsafePlanError(f"{self._what}: sparse or quantised constants are not run")
        for tensor in graph.initializer:
            self._tensor(tensor, tensor.name)
        for node in graph.node:
            self._node(node, depth)

    def _node(self, node: Any, depth: int) -> None:
        if node.domain:
            raise UnsafePlanError(f"{self._what}: operator {node.op_type[:40]!r} of domain {node.domain[:40]!r}")
        if node.op_type not in ALLOWED:
            raise UnsafePlanError(
                f"{self._what}: operator {node.op_type[:40]!r} is not on the list of those a node runs"
            )
        for attribute in node.attribute:
            where = f"{node.op_type}.{attribute.name[:40]}"
            if attribute.ref_attr_name or attribute.type not in _ATTRIBUTES:
                raise UnsafePlanError(
                    f"{self._what}: attribute {where} has a type that is not run ({attribute.type})"
                )
            if attribute.type == onnx.AttributeProto.GRAPH:
                self.check(attribute.g, depth=depth + 1)
            if attribute.type == onnx.AttributeProto.TENSOR:
                self._tensor(attribute.t, where)

    def _tensor(self, tensor: Any, name: str) -> None:
        what = f"{self._what}: constant {name[:40]!r}"
        if tensor.data_location != onnx.TensorProto.DEFAULT or len(tensor.external_data):
            raise UnsafePlanError(f"{what} lies in another file; a plan reads none")
        if tensor.data_type not in _ITEM_BYTES:
            raise UnsafePlanError(f"{what} has ONNX dtype {tensor.data_type}, which plans do not use")
        if len(tensor.dims) > MAX_RANK or any(dim < 0 for dim in tensor.dims):
            raise UnsafePlanError(f"{what} has shape {list(tensor.dims)[:12]}")
        size = math.prod(tensor.dims) * _ITEM_BYTES[tensor.data_type]
        if size > MAX_CONSTANT_BYTES:
            raise UnsafePlanError(f"{what} has {size} bytes, at most {MAX_CONSTANT_BYTES} are run")
        if tensor.HasField("raw_data") and len(tensor.raw_data) != size:
            raise UnsafePlanError(f"{what} holds {len(tensor.raw_data)} bytes, its shape asks for {size}")


def _check_ports(found: Sequence[Any], declared: Sequence[Port], what: str) -> None:
    if [entry.name for entry in found] != [port.name for port in declared]:
        names = [entry.name[:40] for entry in found][:16]
        raise UnsafePlanError(f"{what}s are {names}, the manifest declares {[port.name for port in declared]}")
    for entry, port in zip(found, declared, strict=True):
        tensor = entry.type.tensor_type
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
        if not tensor.HasField("shape") or tensor.elem_type != _DTYPES[port.dtype] or shape != port.shape:
            raise UnsafePlanError(
                f"{what} {port.name!r} has ONNX dtype {tensor.elem_type} and shape {list(shape)[:12]}, "
                f"the manifest declares {port.dtype}{list(port.shape)}"
            )
