"""From the aggregate to the new model, the same bits in every language (spec 07 §9)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from spec.reference.codec import H
from spec.reference.quantise import largest
from spec.reference.refused import Refused

__all__ = ["NewModel", "apply_aggregate", "signed"]


@dataclass(frozen=True)
class NewModel:
    """Little-endian binary32 of theta and of the buffers, and the tail's signed sums."""

    theta: bytes
    buffers: bytes
    tail: list[int]

    @property
    def model_digest(self) -> bytes:
        """H(theta | buffers)."""
        return H(self.theta, self.buffers)

    @property
    def tail_digest(self) -> bytes:
        """H of the tail, each sum as i64."""
        return H(*(value.to_bytes(8, "little", signed=True) for value in self.tail))


def signed(value: int, ring_bits: int) -> int:
    """The signed reading of a ring element."""
    half: int = 1 << (ring_bits - 1)
    return value - 2 * half if value >= half else value


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
) -> NewModel:
    """The new model from the old one and the `sums` (ring elements, padding left out) over the survivors.

    `weight_lost`: the chunk that holds tail[0] is lost.
    """
    aggregate = [signed(value, ring_bits) for value in sums]
    limit = survivors * largest(value_bits)
    for i, s in enumerate(aggregate):
        if abs(s) > limit:
            raise Refused("sum-range", "07 §9", f"coordinate {i} is {s}, at most {limit} is possible")
    # a finite value stays finite: the step is under 2^53, half a unit in the last place of the largest is 2^103
    data = theta + buffers
    old = struct.unpack(f"<{len(data) // 4}f", data)
    tail = aggregate[len(old) :]
    weight = limit if weight_lost else tail[0]
    if weight <= 0:
        raise Refused("weight-zero", "07 §9", f"expected a weight above 0, got {weight}")
    new = b""
    for before, s in zip(old, aggregate, strict=False):
        new += struct.pack("<f", before + (float(s) * clip) / float(weight))
    return NewModel(theta=new[: len(theta)], buffers=new[len(theta) :], tail=tail)
