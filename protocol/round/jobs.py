"""The heavy parts of a round as jobs for a thread: pure, and holding all they need."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.errors import RoundError
from protocol.secagg.apply import Aggregate
from protocol.secagg.keys import agree, mask_key, private_key, self_key
from protocol.secagg.masking import MaskedUpdate, RingElements, SignedKey, mask_update, unmask_sum
from protocol.secagg.parameters import ChunkPlan, RoundParameters
from protocol.secagg.quantise import Quantised, WholeNumbers, signed_sum

__all__ = ["GroupSum", "LocalUpdate", "MaskJob", "SumJob", "UnpackJob", "tail_bytes"]


@dataclass(frozen=True)
class LocalUpdate:
    """What a peer contributes: float32 [P + B] local minus checkpoint, its weight as a fraction of `max_examples`,
    and the rest of the tail (spec 07 §10), `weights_at` the positions in it that are weights. `repr` shows no values.
    """

    values: NDArray[np.float32]
    weight_fraction: float
    tail: tuple[float, ...]
    weights_at: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"LocalUpdate(length={len(self.values)})"

    @property
    def length(self) -> int:
        """Coordinates of the vector it becomes: d."""
        return len(self.values) + 1 + len(self.tail)

    def ring_elements(self, parameters: RoundParameters, rounding_key: bytes) -> Quantised:
        """Quantised while it is read.

        Raises:
            RoundError: its weight is out of range; when it is read, the update holds NaN or infinity.
        """
        return Quantised(
            self.values,
            self.tail,
            weight_fraction=self.weight_fraction,
            clip=parameters.clip,
            largest_value=parameters.largest_value,
            rounding_key=rounding_key,
            weights_at=self.weights_at,
        )


@dataclass(frozen=True)
class GroupSum:
    """What a delegate contributes where groups' sums are combined (spec 08 §4): int32 [d], weight and tail included.

    `repr` shows no values.
    """

    sums: NDArray[np.int32]

    def __repr__(self) -> str:
        return f"GroupSum(length={self.length})"

    @property
    def length(self) -> int:
        """Coordinates: d."""
        return len(self.sums)

    def ring_elements(self, parameters: RoundParameters, *, counts: bool) -> WholeNumbers:
        """Two's complement; zeros where another delegate puts the sum in (`counts` False).

        Raises:
            RoundError: a coordinate is beyond what `multiplicity` peers can sum up to.
        """
        bound = parameters.largest_contribution
        if self.length and (int(self.sums.max()) > bound or int(self.sums.min()) < -bound):
            raise RoundError(
                f"the group's sum is out of range: beyond {parameters.multiplicity} peers' largest values"
            )
        return WholeNumbers(self.sums if counts else self.sums[:0])


@dataclass(frozen=True, repr=False)
class MaskJob:
    """Quantise, mask, pack and hash one update, or mask, pack and hash the sum of a group."""

    parameters: RoundParameters
    plan: ChunkPlan
    own_index: int
    self_mask_seed: bytes
    shared: Mapping[int, bytes]
    t1: bytes
    update: LocalUpdate | GroupSum
    rounding_key: bytes

    def __call__(self) -> MaskedUpdate:
        """Give the packed masked chunks and their digests."""
        keys = [SignedKey(self_key(self.t1, self.self_mask_seed, self.own_index), add=True)]
        for peer in self.plan.peers:
            if peer != self.own_index:
                key = mask_key(self.t1, self.shared[peer], self.own_index, peer)
                keys.append(SignedKey(key, add=peer > self.own_index))
        if isinstance(self.update, LocalUpdate):
            plain: RingElements = self.update.ring_elements(self.parameters, self.rounding_key)
        else:
            counts = self.parameters.contributes(self.own_index, frozenset(self.plan.peers))
            plain = self.update.ring_elements(self.parameters, counts=counts)
        bounds = [self.plan.bounds(chunk) for chunk in range(self.plan.count)]
        return mask_update(plain, keys, ring_bits=self.parameters.ring_bits, chunk_bounds=bounds)


@dataclass(frozen=True, repr=False)
class SumJob:
    """Sum one chunk over the survivors and take the masks off."""

    parameters: RoundParameters
    start: int
    contributions: list[memoryview]
    t1: bytes
    seeds: Mapping[int, bytes]
    mask_privates: Mapping[int, bytes]
    mask_publics: Mapping[int, bytes]

    def __call__(self) -> bytes:
        """Give the packed chunk of the aggregate."""
        keys = [SignedKey(self_key(self.t1, seed, peer), add=False) for peer, seed in self.seeds.items()]
        for dropout, secret in self.mask_privates.items():
            private = private_key(secret)
            for survivor in self.seeds:
                shared = agree(private, self.mask_publics[survivor], survivor)
                # the survivor added this mask if the dropout's index is higher: take it away again, or add it back
                keys.append(SignedKey(mask_key(self.t1, shared, dropout, survivor), add=dropout < survivor))
        return unmask_sum(self.contributions, keys, ring_bits=self.parameters.ring_bits, start=self.start)


@dataclass(frozen=True, repr=False)
class UnpackJob:
    """Put the chunk sums together and check their range; a lost chunk counts as zero."""

    parameters: RoundParameters
    plan: ChunkPlan
    sums: Mapping[int, memoryview]
    survivors: frozenset[int]

    def __call__(self) -> Aggregate:
        """Raise RoundError where a sum is out of range."""
        sums = np.zeros(self.plan.elements, np.int32)
        contributions = self.parameters.contributions(self.survivors)
        for chunk, payload in self.sums.items():
            start, end = self.plan.bounds(chunk)
            signed_sum(
                payload,
                sums[start:end],
                self.parameters.ring_bits,
                survivors=contributions,
                largest_value=self.parameters.largest_contribution,
            )
        lost = tuple(self.plan.bounds(chunk) for chunk in range(self.plan.count) if chunk not in self.sums)
        return Aggregate(
            sums=sums[: self.parameters.vector_length],
            survivors=self.survivors,
            lost=lost,
            contributions=contributions,
        )


def tail_bytes(tail: tuple[int, ...]) -> bytes:
    """The tail's sums as reported and signed: little-endian int64 each."""
    return struct.pack(f"<{len(tail)}q", *tail)
