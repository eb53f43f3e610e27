"""From an update and its metrics to integers (spec 07 §10), in binary64 and in the order of the spec."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spec.reference.refused import Refused

__all__ = ["Metrics", "largest", "quantise"]


@dataclass(frozen=True)
class Metrics:
    """One group of the tail: examples counted, and per metric its mean over them and the plan's bound."""

    weight: int
    means: list[float]
    bounds: list[float]


def largest(value_bits: int) -> int:
    """L."""
    return (1 << (value_bits - 1)) - 1


def _clamp(x: float, bound: float) -> float:
    return max(-bound, min(bound, x))


def _level(x: float, scale: float, u: float, limit: int) -> int:
    return max(-limit, min(limit, math.floor(x * scale + u)))


def quantise(
    update: list[float],
    groups: list[Metrics],
    randoms: list[int],
    *,
    max_examples: int,
    clip: float,
    value_bits: int,
) -> list[int]:
    """q: `update` coordinates, then per group its weight and metrics.

    `groups[0]` are the examples trained on, `groups[1]` (with `evaluate`) the held-out ones. `randoms` holds one
    24-bit integer per coordinate; those at the weights are not used.
    """
    limit = largest(value_bits)
    if groups[0].weight < 1:
        raise Refused("weight-range", "07 §10", "a peer without examples does not take part")
    ratio = groups[0].weight / max_examples
    q = []
    at = iter(randoms)
    for x in update:
        if not math.isfinite(x):
            raise Refused("not-finite", "07 §10", f"a coordinate is {x}")
        q.append(_level(_clamp(x * ratio, clip), limit / clip, next(at) / 2**24, limit))
    for group in groups:
        q += _quantise_group(group, max_examples, limit, [next(at) for _ in range(1 + len(group.means))])
    return q


def _quantise_group(group: Metrics, max_examples: int, limit: int, randoms: list[int]) -> list[int]:
    if not 0 <= group.weight <= max_examples:
        raise Refused("weight-range", "07 §10", f"expected 0 to {max_examples} examples, got {group.weight}")
    ratio = group.weight / max_examples
    out = [_level(ratio, limit, 0.5, limit)]
    for mean, bound, random in zip(group.means, group.bounds, randoms[1:], strict=True):
        if not math.isfinite(mean):
            raise Refused("not-finite", "07 §10", f"a metric is {mean}")
        out.append(_level(_clamp(mean / bound, 1.0) * ratio, limit, random / 2**24, limit))
    return out
