"""Applying an aggregate so that every language gets the same bits (spec 07 §9)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.encoding import Digest
from protocol.errors import RoundError

__all__ = ["Aggregate", "apply_aggregate", "model_digest"]

_TILE = 1 << 14


@dataclass(frozen=True)
class Aggregate:
    """The revealed sum over a survivor set.

    `sums` is int32 [d]: first the model's coordinates, then the tail; `survivors` the peer indexes summed over;
    `lost` the element ranges of lost chunks, whose sums stand at zero; `contributions` how many updates or groups'
    sums it holds, where that is not one per survivor.
    """

    sums: NDArray[np.int32]
    survivors: frozenset[int]
    lost: tuple[tuple[int, int], ...] = ()
    contributions: int | None = None

    def weight(self, model_length: int, largest_value: int) -> int:
        """W, the summed weight; |U| * L where its own chunk is lost: the step is then too short, never too long.

        `largest_value` is the largest weight of one contribution.
        """
        if any(start <= model_length < end for start, end in self.lost):
            count = len(self.survivors) if self.contributions is None else self.contributions
            return count * largest_value
        return int(self.sums[model_length])

    def tail(self, model_length: int) -> tuple[int, ...]:
        """The tail's sums: weight first, then the metrics."""
        return tuple(int(value) for value in self.sums[model_length:])


def apply_aggregate(
    model: NDArray[np.float32], aggregate: Aggregate, *, clip: float, largest_value: int
) -> NDArray[np.float32]:
    """The next model: float32 [P + B] of the checkpoint plus the weighted mean update.

    Raises:
        RoundError: the summed weight is not positive.
    """
    weight = aggregate.weight(len(model), largest_value)
    if weight <= 0:
        raise RoundError(
            f"the summed weight of {len(aggregate.survivors)} survivors is {weight}, expected above zero"
        )
    out = np.empty_like(model)
    step = np.empty(min(_TILE, len(model)), np.float64)
    for start in range(0, len(model), _TILE):
        part = model[start : start + _TILE]
        buffer = step[: len(part)]
        np.multiply(aggregate.sums[start : start + len(part)], clip, out=buffer, dtype=np.float64)
        np.divide(buffer, float(weight), out=buffer)
        np.add(part, buffer, out=buffer, dtype=np.float64)
        out[start : start + len(part)] = buffer
    return out


def model_digest(model: NDArray[np.float32]) -> Digest:
    """SHA-256 of the little-endian float32 bytes of parameters, then buffers."""
    return Digest(hashlib.sha256(np.ascontiguousarray(model, "<f4").data).hexdigest())
