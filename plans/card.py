"""What a person reads before a plan runs on their data: what it reads, what leaves, its parts, who signed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from plans.bundle import Plan, SignedPlan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocol.identity import PeerId
    from protocol.manifest import DataField, Metric

__all__ = ["Card", "FunctionCard", "card"]


@dataclass(frozen=True)
class FunctionCard:
    """One function: its graph's size in bytes, and how often each operator stands in it, inner graphs included."""

    name: str
    graph_bytes: int
    operators: dict[str, int]


@dataclass(frozen=True)
class Card:
    """A plan for people. `reads` stays on the device; `leaves_bytes` is the size of what leaves, masked, in a round.

    That is one number of 4 bytes per shared parameter, buffer and metric, and for the count of examples; the ring of
    a run packs them closer. What is frozen never leaves: every peer has it from the plan. Nor do local parameters:
    every peer trains its own.
    """

    name: str
    version: str
    description: str
    digest: str
    author: PeerId | None
    reads: tuple[DataField, ...]
    metrics: tuple[Metric, ...]
    parameter_count: int
    optimizer_count: int
    buffer_count: int
    frozen_count: int
    local_count: int
    leaves_bytes: int
    bundle_bytes: int
    opset: int
    functions: tuple[FunctionCard, ...]


def card(plan: Plan) -> Card:
    """Describe a plan; `author` is None where nobody signed."""
    manifest = plan.manifest
    return Card(
        name=manifest.name,
        version=manifest.version,
        description=manifest.description,
        digest=plan.digest,
        author=plan.author if isinstance(plan, SignedPlan) else None,
        reads=manifest.data_fields,
        metrics=manifest.metrics,
        parameter_count=manifest.parameter_count,
        optimizer_count=manifest.optimizer_count,
        buffer_count=manifest.buffer_count,
        frozen_count=manifest.frozen_count,
        local_count=manifest.local_count,
        leaves_bytes=4 * (manifest.shared_count + manifest.buffer_count + len(manifest.metrics) + 1),
        bundle_bytes=len(plan.manifest_bytes) + sum(len(data) for data in plan.blobs.values()),
        opset=manifest.opset,
        functions=tuple(_function(kind, plan.graph(kind)) for kind in manifest.functions),
    )


def _function(kind: str, graph: bytes) -> FunctionCard:
    counted = Counter(_operators(onnx.ModelProto.FromString(graph).graph))
    return FunctionCard(kind, len(graph), dict(sorted(counted.items(), key=lambda item: (-item[1], item[0]))))


def _operators(graph: Any) -> Iterable[str]:
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _operators(attribute.g)
