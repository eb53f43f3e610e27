"""Parameters of one round and how its vector is cut into chunks (spec 07 §1, §6)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property

from protocol.encoding import parse_hex
from protocol.errors import TermsError
from protocol.identity import PeerId
from protocol.terms import MAX_COHORT, threshold

__all__ = ["ChunkPlan", "RoundParameters", "bits_of", "indexes_of"]

ELEMENT_GROUP = 8
"""Chunk starts are multiples of this, so every chunk starts on an AES block and on a packed byte."""

MAX_ELEMENTS = 1 << 28

MAX_GROUPS = 1 << 16


def bits_of(indexes: frozenset[int] | set[int]) -> int:
    """A set of peer indexes as an integer: bit i stands for index i."""
    bits = 0
    for index in indexes:
        bits |= 1 << index
    return bits


def indexes_of(bits: int) -> frozenset[int]:
    """The set behind `bits_of`."""
    return frozenset(index for index in range(bits.bit_length()) if bits >> index & 1)


@dataclass(frozen=True, kw_only=True)
class ChunkPlan:
    """How a vector of `elements` is cut among the peers of K, in index order."""

    elements: int
    chunk_elements: int
    peers: tuple[int, ...]
    replicas: int

    @property
    def count(self) -> int:
        """Number of chunks, none of them empty."""
        return -(-self.elements // self.chunk_elements)

    def bounds(self, chunk: int) -> tuple[int, int]:
        """First element of a chunk and the one after its last."""
        start = chunk * self.chunk_elements
        return start, min(start + self.chunk_elements, self.elements)

    def owners(self, chunk: int) -> tuple[int, ...]:
        """Peers that hold a chunk before any reassignment."""
        return tuple(dict.fromkeys(self.peers[(chunk + step) % len(self.peers)] for step in range(self.replicas)))


@dataclass(frozen=True, kw_only=True)
class RoundParameters:
    """Everything T0 binds.

    `cohort` is sorted by identity key; `vector_length` is d; `clip` bounds one coordinate; the digests and ids are
    64 hexadecimal digits. A level that combines the sums of groups (spec 08) has `sources`, for each peer the number
    of the group it speaks for, and `multiplicity`, the most peers summed in what one group contributes.
    """

    run_id: str
    round_id: str
    plan_digest: str
    model_digest: str
    cohort: tuple[PeerId, ...]
    min_survivors: int
    ring_bits: int
    value_bits: int
    replicas: int
    vector_length: int
    clip: float
    multiplicity: int = 1
    sources: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            TermsError: a value outside its range, or a cohort that is not sorted and distinct.
        """
        if not 3 <= len(self.cohort) <= MAX_COHORT:
            raise TermsError(f"round: a cohort has 3 to {MAX_COHORT} peers, got {len(self.cohort)}")
        if list(self.cohort) != sorted(set(self.cohort)):
            raise TermsError("round: the cohort is not sorted by identity key, or names a peer twice")
        if not 1 <= self.vector_length <= MAX_ELEMENTS:
            raise TermsError(f"round: a vector has 1 to {MAX_ELEMENTS} elements, got {self.vector_length}")
        if self.ring_bits not in (16, 20, 24, 32) or self.replicas not in (1, 2) or self.min_survivors < 3:
            raise TermsError("round: ring bits, replicas or smallest survivor set outside their ranges")
        if self.quorum > self.size:
            raise TermsError(f"round: {self.quorum} peers must survive, the cohort has {self.size}")
        if not 0 < self.clip < float("inf") or not 2 <= self.value_bits <= 28:
            raise TermsError(f"round: clip {self.clip} or value bits {self.value_bits} outside their ranges")
        self._check_sources()
        everybody = self.contributions(frozenset(range(self.size)))
        if everybody * self.largest_contribution >= 1 << (self.ring_bits - 1):
            below = f", each over up to {self.multiplicity} peers," if self.combines else ""
            raise TermsError(
                f"round: {everybody} values of {self.value_bits} bits{below} overflow {self.ring_bits} ring bits"
            )

    def _check_sources(self) -> None:
        if not self.sources:
            if self.multiplicity != 1:
                raise TermsError(f"round: {self.multiplicity} peers below a contribution, but no groups are named")
            return
        if len(self.sources) != self.size:
            raise TermsError(f"round: groups are named for {len(self.sources)} peers, the cohort has {self.size}")
        if min(self.sources) < 0 or max(self.sources) >= MAX_GROUPS or len(set(self.sources)) < 2:
            raise TermsError(f"round: peers speak for 2 or more groups below {MAX_GROUPS}, got {set(self.sources)}")
        if not 3 <= self.multiplicity < 1 << 31:
            raise TermsError(f"round: a group sums over 3 peers or more, got {self.multiplicity}")

    @cached_property
    def size(self) -> int:
        """Peers in the cohort: n."""
        return len(self.cohort)

    @cached_property
    def threshold(self) -> int:
        """t: shares that recover, votes that certify."""
        return threshold(self.size)

    @cached_property
    def quorum(self) -> int:
        """The fewest peers a roster, mask set or survivor set may have: max(t, u_min)."""
        return max(self.threshold, self.min_survivors)

    @property
    def largest_value(self) -> int:
        """L: the largest quantised value of one peer."""
        return (1 << (self.value_bits - 1)) - 1

    @property
    def combines(self) -> bool:
        """Whether this cohort sums the sums of groups (spec 08), not updates."""
        return bool(self.sources)

    @property
    def largest_contribution(self) -> int:
        """The largest value one contribution may hold: L, or `multiplicity` times L."""
        return self.multiplicity * self.largest_value

    def contributions(self, members: frozenset[int]) -> int:
        """How many updates or groups' sums a set of peers puts in: peers of one group put its sum in once."""
        return len({self.sources[index] for index in members}) if self.sources else len(members)

    def contributes(self, index: int, mask_set: frozenset[int]) -> bool:
        """Whether a peer puts its group's sum in, and not zeros: of each group, the first in the mask set does."""
        if not self.sources:
            return index in mask_set
        mine = self.sources[index]
        return index == min((other for other in mask_set if self.sources[other] == mine), default=None)

    @property
    def padded_length(self) -> int:
        """D: `vector_length` rounded up to whole groups of eight."""
        return -(-self.vector_length // ELEMENT_GROUP) * ELEMENT_GROUP

    @property
    def max_chunk_bytes(self) -> int:
        """Packed bytes of the largest chunk any valid mask set gives."""
        return self.packed_bytes(self._chunk_elements(self.quorum))

    @cached_property
    def t0(self) -> bytes:
        """The digest every message of the round is bound to."""
        digests = (self.round_id, self.plan_digest, self.model_digest)
        head = struct.pack(
            "<HHHBBBQd",
            self.size,
            self.threshold,
            self.quorum,
            self.ring_bits,
            self.value_bits,
            self.replicas,
            self.vector_length,
            self.clip,
        )
        return hashlib.sha256(
            b"p2psa/1/round"
            + b"".join(parse_hex(digest, what="round digest") for digest in digests)
            + head
            + parse_hex(self.run_id, what="run id")
            + b"".join(parse_hex(peer, what="peer id") for peer in self.cohort)
            + self._groups()
        ).digest()

    def _groups(self) -> bytes:
        """What T0 adds where groups' sums are combined: nothing else binds who speaks for whom."""
        return struct.pack(f"<I{self.size}H", self.multiplicity, *self.sources) if self.sources else b""

    def packed_bytes(self, elements: int) -> int:
        """Bytes that `elements` (a multiple of eight) take when packed."""
        return elements * self.ring_bits // 8

    def chunks(self, mask_set: frozenset[int]) -> ChunkPlan:
        """The chunks among the peers of a mask set."""
        return ChunkPlan(
            elements=self.padded_length,
            chunk_elements=self._chunk_elements(len(mask_set)),
            peers=tuple(sorted(mask_set)),
            replicas=self.replicas,
        )

    def _chunk_elements(self, peers: int) -> int:
        return -(-self.padded_length // (ELEMENT_GROUP * peers)) * ELEMENT_GROUP
