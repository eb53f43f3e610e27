"""The masked vector's tail (spec 06 §3): weight and metrics that only ever show up as a sum over peers."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from protocol.errors import EncodingError
from protocol.manifest import PlanManifest
from protocol.terms import RunTerms

__all__ = ["Metrics", "Part", "compose_tail", "read_tail", "tail_length"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Metrics over one part of a peer's data: `means` by metric name, over `examples` examples."""

    examples: int
    means: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What a round says about the cohort: weighted means over its survivors.

    `examples` is the summed weight in examples; `held_out` is None where the run or its peers hold nothing out.
    """

    examples: float
    training: dict[str, float]
    held_out_examples: float
    held_out: dict[str, float] | None


def tail_length(manifest: PlanManifest, terms: RunTerms) -> int:
    """Coordinates of the tail, the weight included."""
    part = 1 + len(manifest.metrics)
    return 2 * part if terms.evaluate else part


def compose_tail(
    manifest: PlanManifest, terms: RunTerms, training: Part, held_out: Part | None
) -> tuple[float, tuple[float, ...]]:
    """This peer's weight as a fraction of `max_examples`, and the tail's other coordinates in [-1, 1]."""
    most = terms.local.max_examples
    fraction = 1.0 if terms.local.weighting == "uniform" else min(training.examples, most) / most
    rest = _coordinates(manifest, training, fraction)
    if terms.evaluate:
        held_fraction = 0.0 if held_out is None else min(held_out.examples, most) / most
        rest.append(held_fraction)
        rest += _coordinates(manifest, held_out or Part(examples=0, means={}), held_fraction)
    return fraction, tuple(rest)


def _coordinates(manifest: PlanManifest, part: Part, fraction: float) -> list[float]:
    return [
        max(-1.0, min(1.0, part.means.get(metric.name, 0.0) / metric.bound)) * fraction for metric in manifest.metrics
    ]


def read_tail(manifest: PlanManifest, terms: RunTerms, payload: bytes) -> Metrics:
    """Metrics from the tail's summed bytes, as logged: little-endian int64 each.

    Raises:
        EncodingError: the length is not that of this plan's and run's tail.
    """
    expected = 8 * tail_length(manifest, terms)
    if len(payload) != expected:
        raise EncodingError(f"run {terms.name}: metrics have {len(payload)} bytes, expected {expected}")
    sums = struct.unpack(f"<{len(payload) // 8}q", payload)
    part = 1 + len(manifest.metrics)
    examples, training = _means(manifest, terms, sums[:part])
    held_examples, held_out = _means(manifest, terms, sums[part:]) if terms.evaluate else (0.0, {})
    return Metrics(
        examples=examples,
        training=training,
        held_out_examples=held_examples,
        held_out=held_out if held_examples > 0 else None,
    )


def _means(manifest: PlanManifest, terms: RunTerms, sums: tuple[int, ...]) -> tuple[float, dict[str, float]]:
    weight = sums[0]
    if weight <= 0:
        return 0.0, {}
    largest = (1 << (terms.value_bits - 1)) - 1
    means = {
        metric.name: value / weight * metric.bound for metric, value in zip(manifest.metrics, sums[1:], strict=True)
    }
    return weight / largest * terms.local.max_examples, means
