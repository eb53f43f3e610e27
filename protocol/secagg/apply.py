"""Applying an aggregate so that every language gets the same bits (spec 07 §9)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.encoding import Digest
from protocol.errors import RoundError
from protocol.secagg import passes
from protocol.secagg.server_step import step_of
from protocol.server_optimizer import FEDAVG, ServerOptimizer, moment_count

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
    model: NDArray[np.float32],
    aggregate: Aggregate,
    *,
    clip: float,
    largest_value: int,
    optimizer: ServerOptimizer = FEDAVG,
    parameter_count: int | None = None,
) -> NDArray[np.float32]:
    """The next model: float32 [P + B + moments] of the checkpoint and the weighted mean update.

    `parameter_count` is P, by default all that is no moment: there are no buffers then.

    Raises:
        RoundError: the summed weight is not positive.
    """
    count = moment_count(optimizer, 1)
    parameters = len(model) // (1 + count) if parameter_count is None else parameter_count
    length = len(model) - count * parameters
    weight = aggregate.weight(length, largest_value)
    if weight <= 0:
        raise RoundError(
            f"the summed weight of {len(aggregate.survivors)} survivors is {weight}, expected above zero"
        )
    model = np.require(model, np.float32, ("C", "A"))  # bytes from elsewhere may lie at odd places
    out = np.empty_like(model)
    tile = min(_TILE, length)
    space, adapt = np.empty(tile, np.float64), step_of(optimizer, tile)
    for start, end in (*_tiles(0, parameters), *_tiles(parameters, length)):
        change = space[: end - start]
        passes.mean(change, aggregate.sums[start:end], clip, float(weight))
        if start < parameters:
            moments = [slice(at + start, at + end) for at in range(length, len(model), parameters)]
            adapt(change, [model[part] for part in moments], [out[part] for part in moments])
        passes.advance(out[start:end], model[start:end], change)
    return out


def _tiles(start: int, end: int) -> list[tuple[int, int]]:
    return [(at, min(at + _TILE, end)) for at in range(start, end, _TILE)]


def model_digest(model: NDArray[np.float32]) -> Digest:
    """SHA-256 of the little-endian float32 bytes of parameters, buffers, moments."""
    return Digest(hashlib.sha256(np.ascontiguousarray(model, "<f4").data).hexdigest())
