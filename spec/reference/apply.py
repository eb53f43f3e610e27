"""From the aggregate to the new model, the same bits in every language (spec 07 §9)."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from spec.reference.codec import H
from spec.reference.quantise import largest
from spec.reference.refused import Refused

__all__ = ["NewModel", "Optimizer", "apply_aggregate", "signed", "signed_sums"]


@dataclass(frozen=True)
class Optimizer:
    """The server optimizer of the terms (spec 06 §1)."""

    kind: str = "fedavg"
    learning_rate: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    @property
    def moments(self) -> int:
        """Moments kept of each parameter."""
        return {"fedavg": 0, "fedavgm": 1, "fedadam": 2, "fedyogi": 2}[self.kind]

    def initial(self, parameters: int) -> bytes:
        """What the moments are before round 1: m zero, then v binary32(tau * tau)."""
        first, second = bytes(4 * parameters), struct.pack("<f", self.tau * self.tau) * parameters
        return (first + second)[: 4 * self.moments * parameters]


@dataclass(frozen=True)
class NewModel:
    """Little-endian binary32 of theta, of the buffers and of the moments, and the tail's signed sums."""

    theta: bytes
    buffers: bytes
    moments: bytes
    tail: list[int]

    @property
    def model_digest(self) -> bytes:
        """H(theta | buffers | moments)."""
        return H(self.theta, self.buffers, self.moments)

    @property
    def tail_digest(self) -> bytes:
        """H of the tail, each sum as i64."""
        return H(*(value.to_bytes(8, "little", signed=True) for value in self.tail))


def signed(value: int, ring_bits: int) -> int:
    """The signed reading of a ring element."""
    half: int = 1 << (ring_bits - 1)
    return value - 2 * half if value >= half else value


def signed_sums(sums: list[int], ring_bits: int, limit: int) -> list[int]:
    """The signed reading of every sum, none of them beyond what the contributions can add up to."""
    aggregate = [signed(value, ring_bits) for value in sums]
    for i, s in enumerate(aggregate):
        if abs(s) > limit:
            raise Refused("sum-range", "07 §9", f"coordinate {i} is {s}, at most {limit} is possible")
    return aggregate


def apply_aggregate(
    theta: bytes,
    buffers: bytes,
    sums: list[int],
    survivors: int,
    *,
    clip: float,
    value_bits: int,
    ring_bits: int,
    weight_lost: bool,
    optimizer: Optimizer = Optimizer(),
    moments: bytes = b"",
    multiplicity: int = 1,
) -> NewModel:
    """The new model from the old one and the `sums` (ring elements, padding left out) over the survivors.

    `weight_lost`: the chunk that holds tail[0] is lost. Where groups' sums are combined, `survivors` counts groups
    and `multiplicity` is the most peers of one (spec 08 §4).
    """
    limit = survivors * multiplicity * largest(value_bits)
    aggregate = signed_sums(sums, ring_bits, limit)
    # a finite value stays finite: a step is under 2^94, half a unit in the last place of the largest is 2^103
    old, before = _floats(theta + buffers), _floats(moments)
    parameters = len(theta) // 4
    tail = aggregate[len(old) :]
    weight = limit if weight_lost else tail[0]
    if weight <= 0:
        raise Refused("weight-zero", "07 §9", f"expected a weight above 0, got {weight}")
    changes = [(float(s) * clip) / float(weight) for s in aggregate[: len(old)]]
    after: list[float] = []
    if optimizer.kind != "fedavg":
        changes[:parameters], after = _adapt(optimizer, changes[:parameters], before)
    else:
        changes[:parameters] = [optimizer.learning_rate * d for d in changes[:parameters]]
    new = struct.pack(f"<{len(old)}f", *(value + change for value, change in zip(old, changes, strict=True)))
    return NewModel(
        theta=new[: len(theta)],
        buffers=new[len(theta) :],
        moments=struct.pack(f"<{len(after)}f", *after),
        tail=tail,
    )


def _adapt(o: Optimizer, changes: list[float], before: list[float]) -> tuple[list[float], list[float]]:
    """What is added to theta, and the moments after it."""
    count = len(changes)
    m, v = before[:count], before[count:]
    if o.kind == "fedavgm":
        m = [_binary32(o.beta1 * mi + d) for mi, d in zip(m, changes, strict=True)]
        return [o.learning_rate * mi for mi in m], m
    m = [_binary32(o.beta1 * mi + (1.0 - o.beta1) * d) for mi, d in zip(m, changes, strict=True)]
    if o.kind == "fedadam":
        v = [_binary32(o.beta2 * vi + (1.0 - o.beta2) * (d * d)) for vi, d in zip(v, changes, strict=True)]
    else:
        v = [_binary32(_yogi(vi, d * d, o.beta2)) for vi, d in zip(v, changes, strict=True)]
    steps = [(o.learning_rate * mi) / (math.sqrt(vi) + o.tau) for mi, vi in zip(m, v, strict=True)]
    return steps, m + v


def _yogi(v: float, square: float, beta2: float) -> float:
    if v == square:
        return v
    return v - (1.0 - beta2) * square if v > square else v + (1.0 - beta2) * square


def _binary32(x: float) -> float:
    (rounded,) = struct.unpack("<f", struct.pack("<f", x))
    return float(rounded)


def _floats(data: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(data) // 4}f", data))
