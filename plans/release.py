"""A model to hand out: the plan's predict graph with one model's vectors inside, for stock ONNX Runtime anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import checker, numpy_helper

from plans.errors import BundleError, UnusableDataError

if TYPE_CHECKING:
    from plans.bundle import Plan

__all__ = ["MAX_RELEASE_BYTES", "released_model"]

MAX_RELEASE_BYTES = (1 << 31) - (1 << 20)
"""What one ONNX file without external data can hold; protobuf ends at 2 GiB."""


def released_model(
    plan: Plan,
    theta: np.ndarray[Any, np.dtype[np.float32]],
    buffers: np.ndarray[Any, np.dtype[np.float32]],
    *,
    facts: Mapping[str, str] | None = None,
) -> bytes:
    """ONNX bytes whose inputs are the plan's data inputs alone, each [N, ...], and whose output is `predict`'s.

    `theta` float32 [P] and `buffers` float32 [B] become initialisers, finite throughout. The file's metadata name
    the plan, and whatever `facts` add.

    Raises:
        BundleError: the plan has no predict function, or the file would be larger than `MAX_RELEASE_BYTES`.
        UnusableDataError: a vector does not fit the plan, or holds NaN or infinity.
    """
    graph = plan.graph("predict")
    sizes = {
        "theta": plan.manifest.parameter_count,
        "buffers": plan.manifest.buffer_count,
        "frozen": plan.manifest.frozen_count,
    }
    vectors = {"theta": theta, "buffers": buffers, "frozen": plan.initial("frozen")}
    for role, vector in vectors.items():
        _check_vector(plan, role, vector, sizes[role])
    size = len(graph) + sum(vector.nbytes for vector in vectors.values())
    if size > MAX_RELEASE_BYTES:
        raise BundleError(
            f"plan {plan.manifest.name}: a released model of {size} bytes; one file holds {MAX_RELEASE_BYTES} at most"
        )
    model = onnx.ModelProto.FromString(graph)
    _bake(model.graph, vectors)
    model.doc_string = plan.manifest.description
    told = {
        "peerplan.plan": plan.digest,
        "peerplan.name": plan.manifest.name,
        "peerplan.version": plan.manifest.version,
    }
    onnx.helper.set_model_props(model, told | dict(facts or {}))
    checker.check_model(model)
    return bytes(model.SerializeToString())


def _check_vector(plan: Plan, role: str, vector: np.ndarray[Any, Any], expected: int) -> None:
    if vector.dtype != np.float32 or vector.shape != (expected,):
        raise UnusableDataError(
            f"plan {plan.manifest.name}: {role} is {vector.dtype}{list(vector.shape)}, expected float32[{expected}]"
        )
    if not np.isfinite(vector).all():
        raise UnusableDataError(f"plan {plan.manifest.name}: {role} holds NaN or infinity")


def _bake(graph: Any, vectors: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Turn inputs into initialisers; one that nothing reads only goes away."""
    read = set(_names_read(graph))
    kept = [port for port in graph.input if port.name not in vectors]
    del graph.input[:]
    graph.input.extend(kept)
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(vector, "<f4"), role)
        for role, vector in vectors.items()
        if role in read
    )


def _names_read(graph: Any) -> Iterator[str]:
    """Every value name that a node of the graph, or of a graph within it, reads; the graph's own outputs too."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _names_read(attribute.g)
    yield from (port.name for port in graph.output)
