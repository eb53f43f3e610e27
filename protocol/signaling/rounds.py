"""Rounds as the signaling server sees them (spec 03 §6): cohorts are named, thresholds of signed results logged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from protocol.cohorts import compute_group_round_id
from protocol.encoding import Digest, Hex64, parse_hex
from protocol.errors import EncodingError
from protocol.identity import Identity, verify
from protocol.signaling.base import (
    MAX_METRICS_BYTES,
    MAX_PAGE,
    Event,
    Member,
    Record,
    Reply,
    Request,
    Sentence,
    Signature,
)
from protocol.terms import MAX_COHORT, MAX_COHORTS

__all__ = [
    "RESULT_LABEL",
    "Combining",
    "GroupCount",
    "Log",
    "LogEntry",
    "LogPage",
    "MemberSignature",
    "PeerBack",
    "PeerGone",
    "Place",
    "Result",
    "RoundAborted",
    "RoundFailed",
    "RoundLogged",
    "RoundOpened",
    "RoundStart",
    "bitmap_of",
    "check_result_signature",
    "compute_cohort_round_id",
    "compute_round_id",
    "indices_of",
    "result_payload",
    "sign_result",
]

RESULT_LABEL = "peerplan/1/result"
ROUND_ID_LABEL = b"p2psa/1/id"

Index = Annotated[int, msgspec.Meta(ge=0, lt=MAX_COHORT)]
Survivors = Annotated[tuple[Index, ...], msgspec.Meta(max_length=MAX_COHORT)]
"""Cohort indices of the survivor set, ascending. Signed as a u64 bitmap, which JSON numbers cannot hold."""
GoneReason = Literal["left", "lost", "replaced"]
Round = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Attempt = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Metrics = Annotated[bytes, msgspec.Meta(max_length=MAX_METRICS_BYTES)]
Cohort = Annotated[tuple[Hex64, ...], msgspec.Meta(min_length=3, max_length=MAX_COHORT)]
_PeerCount = Annotated[int, msgspec.Meta(ge=3, le=MAX_COHORT)]


class Place(Record, frozen=True, kw_only=True):
    """Where a cohort stands in a round of many (spec 08 §2). Without one, it is the round's only cohort."""

    level: Annotated[int, msgspec.Meta(ge=1, le=2)]
    """1: its peers' updates are summed; 2: the sums of level 1 are."""
    group: Annotated[int, msgspec.Meta(ge=0, lt=MAX_COHORTS)]


class GroupCount(Record, frozen=True, kw_only=True):
    """A level-1 cohort whose sum is combined: its number, how many peers it named and how many its sum holds."""

    group: Annotated[int, msgspec.Meta(ge=0, lt=MAX_COHORTS)]
    members: _PeerCount
    survivors: _PeerCount


class Combining(Record, frozen=True, kw_only=True):
    """What a cohort of delegates combines (spec 08 §3): for each of its members the number of the group that it
    speaks for, the most peers of one group (M), and the signaling server's word on each group.
    """

    sources: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=0, lt=MAX_COHORTS)], ...],
        msgspec.Meta(min_length=3, max_length=MAX_COHORT),
    ]
    multiplicity: _PeerCount
    groups: Annotated[tuple[GroupCount, ...], msgspec.Meta(min_length=2, max_length=MAX_COHORTS)]


class RoundStart(Event, frozen=True, kw_only=True):
    """This peer is named in a cohort. `members` ascend by peer id: a member's position is its index in p2psa/1.

    Rounds and attempts count from 1. The same message is sent again when a member's session reconnects while the
    attempt is still open. `combining` comes with a `place` on level 2, and only there.
    """

    run: Hex64
    round: Round
    attempt: Attempt
    round_id: Hex64
    model_digest: Hex64
    members: Annotated[tuple[Member, ...], msgspec.Meta(min_length=3, max_length=MAX_COHORT)]
    place: Place | None = None
    combining: Combining | None = None


class MemberSignature(Record, frozen=True, kw_only=True):
    """The signature of the cohort member at `index` over the result (`result_payload`)."""

    index: Index
    signature: Signature


class Result(Request, frozen=True, kw_only=True):
    """What a round gave: the digest of the next model, who survived, and the public, unmasked metrics as JSON bytes.

    A cohort of level 1 reports the digest of its sum, and no metrics: those of one group concern nobody else.
    `signatures` are over `result_payload`; the reporter's own is required, those of others may ride along, so that
    a round is logged even where some members cannot reach the signaling server.
    """

    run: Hex64
    round: Round
    attempt: Attempt
    model_digest: Hex64
    survivors: Survivors
    metrics: Metrics
    signatures: Annotated[tuple[MemberSignature, ...], msgspec.Meta(min_length=1, max_length=MAX_COHORT)]
    place: Place | None = None


class RoundFailed(Request, frozen=True, kw_only=True):
    """This peer gave the attempt up. `missing` names members it holds responsible, for the log alone."""

    run: Hex64
    round: Round
    attempt: Attempt
    reason: Sentence
    missing: Annotated[tuple[Hex64, ...], msgspec.Meta(max_length=MAX_COHORT)] = ()
    place: Place | None = None


class RoundAborted(Event, frozen=True, kw_only=True):
    """To members: the attempt is closed without a result; a new one follows when enough peers are ready.

    With a `place`, only that cohort has failed: the others of the round go on without it.
    """

    run: Hex64
    round: Round
    attempt: Attempt
    reason: Sentence
    place: Place | None = None


class LogEntry(Record, frozen=True, kw_only=True):
    """One logged round, with everything needed to check it: see `check_result_signature`.

    Of a round of many cohorts it holds the last one, that of the delegates; `combining` says whose sums it combined.
    """

    run: Hex64
    round: Round
    attempt: Attempt
    round_id: Hex64
    cohort: Cohort
    survivors: Survivors
    previous_digest: Hex64
    model_digest: Hex64
    metrics: Metrics
    signatures: tuple[MemberSignature, ...]
    seconds: float
    """From naming the cohort to the deciding signature."""
    logged_at: float
    combining: Combining | None = None

    def peers(self) -> tuple[int, int]:
        """How many peers were named in the round, and how many updates its sum holds.

        Of many cohorts, the second is the signaling server's word: delegates sign for groups.
        """
        if self.combining is None:
            return len(self.cohort), len(self.survivors)
        counted = {self.combining.sources[index] for index in self.survivors}
        return (
            sum(item.members for item in self.combining.groups),
            sum(item.survivors for item in self.combining.groups if item.group in counted),
        )


class RoundOpened(Event, frozen=True, kw_only=True):
    """To watchers: a cohort was named."""

    run: Hex64
    round: Round
    attempt: Attempt
    cohort: Cohort
    place: Place | None = None


class RoundLogged(Event, frozen=True, kw_only=True):
    """To watchers and to all peers that accepted the run: a round is decided."""

    entry: LogEntry


class Log(Request, frozen=True, kw_only=True):
    """One page of a run's round log from round `first` on."""

    run: Hex64
    first: Round = 1
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 20


class LogPage(Reply, frozen=True, kw_only=True):
    """A page; `next` is the round to ask for, absent on the last."""

    entries: tuple[LogEntry, ...]
    next: int | None = None


class PeerGone(Event, frozen=True, kw_only=True):
    """To members of the open cohort: this peer's session ended."""

    run: Hex64
    peer: Hex64
    reason: GoneReason = "lost"


class PeerBack(Event, frozen=True, kw_only=True):
    """To members of the open cohort: this peer has a session again."""

    run: Hex64
    peer: Hex64


def compute_round_id(run: str, round_number: int, attempt: int) -> Digest:
    """SHA-256("p2psa/1/id" | run id | u32le round | u32le attempt), which all of a round's messages are bound to."""
    state = hashlib.sha256(ROUND_ID_LABEL + parse_hex(run, what="run id"))
    state.update(round_number.to_bytes(4, "little") + attempt.to_bytes(4, "little"))
    return Digest(state.hexdigest())


def compute_cohort_round_id(run: str, round_number: int, attempt: int, place: Place | None) -> Digest:
    """The id of a round's only cohort, or of the one at a place among many."""
    if place is None:
        return compute_round_id(run, round_number, attempt)
    return compute_group_round_id(run, round_number, attempt, place.level, place.group)


def bitmap_of(indices: Iterable[int]) -> int:
    """Survivor indices as a bitmap: bit i is set where index i survived.

    Raises:
        EncodingError: indices do not ascend strictly or exceed `MAX_COHORT`.
    """
    bitmap, last = 0, -1
    for index in indices:
        if not last < index < MAX_COHORT:
            raise EncodingError(
                f"survivors: index {index} after {last}; expected ascending indices below {MAX_COHORT}"
            )
        bitmap |= 1 << index
        last = index
    return bitmap


def indices_of(bitmap: int) -> tuple[int, ...]:
    """The ascending indices of the set bits of a u64 bitmap."""
    return tuple(index for index in range(MAX_COHORT) if bitmap >> index & 1)


def result_payload(round_id: str, model_digest: str, survivors: Iterable[int], metrics: bytes) -> bytes:
    """What members sign: round id (32) | model digest (32) | u64le survivor bitmap | SHA-256(metrics).

    Raises:
        EncodingError: a digest is malformed, or the survivors do not ascend.
    """
    return b"".join(
        [
            parse_hex(round_id, what="round id"),
            parse_hex(model_digest, what="model digest"),
            bitmap_of(survivors).to_bytes(8, "little"),
            hashlib.sha256(metrics).digest(),
        ]
    )


def sign_result(
    identity: Identity, *, round_id: str, model_digest: str, survivors: Iterable[int], metrics: bytes
) -> bytes:
    """One member's 64-byte signature over a result."""
    return identity.sign(RESULT_LABEL, result_payload(round_id, model_digest, survivors, metrics))


def check_result_signature(peer: str, payload: bytes, signature: bytes) -> None:
    """Check one member's signature over `result_payload`.

    Raises:
        SignatureError: it is not that peer's.
    """
    verify(peer, RESULT_LABEL, payload, signature)
