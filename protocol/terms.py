"""The terms of a run (spec 06 §1): what the author asks of peers, signed, so that no server can change a word."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from protocol.encoding import Hex64, Name, decode_json, encode_json
from protocol.errors import TermsError
from protocol.server_optimizer import FEDAVG, ServerOptimizer

__all__ = [
    "COMBINING_RING_BITS",
    "MAX_COHORT",
    "MAX_COHORTS",
    "Deadlines",
    "LocalTraining",
    "RunTerms",
    "decode_terms",
    "encode_terms",
    "threshold",
]

MAX_COHORT = 64
MAX_COHORTS = 64
"""Cohorts of one round: as many as one cohort of delegates can combine."""
MAX_TERMS_BYTES = 64 << 10
COMBINING_RING_BITS = 32
"""The ring in which cohorts' sums are combined, whatever ring their peers' updates are summed in."""

_Milliseconds = Annotated[int, msgspec.Meta(ge=100, le=3_600_000)]


def threshold(cohort_size: int) -> int:
    """Votes and shares that decide: t = floor(2n/3) + 1, so two quorums always share an honest peer."""
    return 2 * cohort_size // 3 + 1


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of terms records: frozen and strict."""


class Deadlines(_Record, frozen=True, kw_only=True):
    """How long a peer waits in each stage, in milliseconds, before it goes on without the missing."""

    link_ms: _Milliseconds = 10_000
    train_ms: _Milliseconds = 60_000
    advertise_ms: _Milliseconds = 5_000
    share_ms: _Milliseconds = 5_000
    commit_ms: _Milliseconds = 10_000
    consistency_ms: _Milliseconds = 5_000
    unmask_ms: _Milliseconds = 5_000
    sum_ms: _Milliseconds = 10_000


class LocalTraining(_Record, frozen=True, kw_only=True):
    """What a peer does with its own data in one round."""

    epochs: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=1e3)]
    max_examples: Annotated[int, msgspec.Meta(ge=1, le=1 << 24)] = 2048
    """Examples used per round at most; also the weight that counts as one in the average.

    A peer with a hundredth of it keeps a hundredth of the ring's precision: stay near the largest dataset.
    """
    weighting: Literal["examples", "uniform"] = "examples"


class RunTerms(_Record, frozen=True, kw_only=True):
    """Terms of one run; the run id is the SHA-256 of these exact bytes."""

    format: Literal["peerplan-run/1"] = "peerplan-run/1"
    name: Name
    plan: Hex64
    """SHA-256 of the plan manifest's exact bytes."""
    nonce: Hex64
    """Random: two runs of one plan differ."""
    rounds: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
    cohort_size: Annotated[int, msgspec.Meta(ge=3, le=MAX_COHORT)]
    min_cohort: Annotated[int, msgspec.Meta(ge=3, le=MAX_COHORT)]
    """A round starts with fewer peers than `cohort_size` when the rest are away, never with fewer than this."""
    cohorts: Annotated[int, msgspec.Meta(ge=1, le=MAX_COHORTS)] = 1
    """Cohorts of one round at most (spec 08); with more than one, delegates combine the sums of all of them."""
    min_survivors: Annotated[int, msgspec.Meta(ge=3, le=MAX_COHORT)]
    """u_min: no sum over fewer peers is ever revealed."""
    ring_bits: Literal[16, 20, 24, 32] = 20
    value_bits: Annotated[int, msgspec.Meta(ge=8, le=28)] = 16
    clip: Annotated[float, msgspec.Meta(ge=1e-30, le=1e6)]
    """L-infinity bound of one coordinate of an update; larger ones are clipped before quantising."""
    replicas: Literal[1, 2] = 1
    retries: Annotated[int, msgspec.Meta(ge=0, le=100)] = 5
    """Attempts after the first that one round may take before the run stops."""
    members: tuple[Hex64, ...] = ()
    """Peers that may take part; empty means any that consent."""
    evaluate: bool = True
    """Peers evaluate the checkpoint on data held out by their owner, and the masked metrics ride along."""
    server_optimizer: ServerOptimizer = FEDAVG
    """How every peer applies the mean update (spec 07 §9)."""
    local: LocalTraining
    deadlines: Deadlines = Deadlines()


def encode_terms(terms: RunTerms) -> bytes:
    """The JSON bytes an author signs."""
    return encode_json(terms)


def decode_terms(data: bytes) -> RunTerms:
    """Parse terms and check that they agree with themselves.

    Raises:
        EncodingError, LimitExceededError: the bytes are no terms.
        TermsError: sums could overflow the ring, or counts contradict each other.
    """
    terms = decode_json(data, RunTerms, what="run terms", max_bytes=MAX_TERMS_BYTES)
    check_terms(terms)
    return terms


def check_terms(terms: RunTerms) -> None:
    """Check that terms agree with themselves.

    Raises:
        TermsError: the first contradiction found.
    """
    if not terms.min_survivors <= terms.min_cohort <= terms.cohort_size:
        raise TermsError(
            f"run {terms.name}: expected min_survivors <= min_cohort <= cohort_size, "
            f"got {terms.min_survivors}, {terms.min_cohort}, {terms.cohort_size}"
        )
    largest = terms.cohort_size * (2 ** (terms.value_bits - 1) - 1)
    if largest >= 2 ** (terms.ring_bits - 1):
        raise TermsError(
            f"run {terms.name}: {terms.cohort_size} peers of {terms.value_bits}-bit values sum up to {largest}, "
            f"a ring of {terms.ring_bits} bits holds less than {2 ** (terms.ring_bits - 1)}: "
            "take more ring_bits, fewer value_bits or a smaller cohort"
        )
    combined = terms.cohorts * largest
    if terms.cohorts > 1 and combined >= 2 ** (COMBINING_RING_BITS - 1):
        raise TermsError(
            f"run {terms.name}: {terms.cohorts} cohorts of {terms.cohort_size} peers of {terms.value_bits}-bit "
            f"values sum up to {combined}, {COMBINING_RING_BITS} bits hold less than {2 ** (COMBINING_RING_BITS - 1)}"
        )
    if len(set(terms.members)) != len(terms.members):
        raise TermsError(f"run {terms.name}: a member is listed twice")
    if terms.members and len(terms.members) < terms.min_cohort:
        raise TermsError(f"run {terms.name}: {len(terms.members)} members, min_cohort is {terms.min_cohort}")
