"""One cohort's attempt at a round: who is named, who reported what, and when that decides (spec 03 §6.3).

open --(threshold signatures over one result)--> decided
|--(threshold out of reach: failures, absences, contradictions)--> hopeless
'--(sum of the stage deadlines)--> overdue (the run machine's timer)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.errors import EncodingError, SignatureError
from protocol.identity import short
from protocol.signaling import (
    Combining,
    LogEntry,
    MemberSignature,
    Place,
    Result,
    RoundAborted,
    RoundOpened,
    RoundStart,
    check_result_signature,
    codes,
    compute_cohort_round_id,
    result_payload,
)
from protocol.signaling.base import Member
from protocol.terms import threshold
from signaling.errors import RefusedError
from signaling.outbox import SaveAttempt

__all__ = ["Attempt", "Decision"]


@dataclass(frozen=True)
class Decision:
    """A result that reached the threshold, with the signatures that did it."""

    result: Result
    signatures: tuple[MemberSignature, ...]
    signers: tuple[str, ...]


@dataclass
class Attempt:
    """Tally of one cohort. `absent_since` holds members without a session, `lost` those away for too long,
    `failed` those that gave up. In a round of many cohorts it has a `place`, and delegates' also `combining`.
    """

    run: str
    round: int
    number: int
    cohort: tuple[str, ...]
    model_digest: str
    opened_at: float
    place: Place | None = None
    combining: Combining | None = None
    failed: dict[str, str] = field(default_factory=dict)
    absent_since: dict[str, float] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    _results: dict[bytes, Result] = field(default_factory=dict)
    _signatures: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    """Per cohort index: the payload it signed first, and the signature."""
    _tallied: tuple[Decision | None] | None = field(default=None, init=False)
    """The decision, until the next report: it is asked for after every event of any of thousands of peers."""

    def __post_init__(self) -> None:
        self.round_id = compute_cohort_round_id(self.run, self.round, self.number, self.place)

    @property
    def threshold(self) -> int:
        """Signatures that decide."""
        return threshold(len(self.cohort))

    @property
    def name(self) -> str:
        """For messages to people."""
        where = "" if self.place is None else f" level {self.place.level} group {self.place.group}"
        return f"run {short(self.run)} round {self.round} attempt {self.number}{where}"

    @property
    def parts(self) -> tuple[Attempt, ...]:
        """The cohorts that work on the round: this one."""
        return (self,)

    @property
    def standing(self) -> tuple[Attempt, ...]:
        """Cohorts whose members were not told yet that they are left out: this one."""
        return (self,)

    def names(self, peer: str) -> bool:
        """Whether a peer is in the cohort."""
        return peer in self.cohort

    @property
    def deciding(self) -> Attempt | None:
        """The cohort whose result is the round's: this one."""
        return self

    def others(self, peer: str) -> tuple[str, ...]:
        """The cohort without a peer."""
        return tuple(other for other in self.cohort if other != peer)

    def start_for(self, peer: str, member: Callable[[str], Member]) -> RoundStart:
        """What a member is told.

        Raises:
            RefusedError: not a member.
        """
        self._index(peer)
        return self.start_message(member)

    def start_message(self, member: Callable[[str], Member]) -> RoundStart:
        """What all members are told."""
        return RoundStart(
            run=self.run,
            round=self.round,
            attempt=self.number,
            round_id=self.round_id,
            model_digest=self.model_digest,
            members=tuple(member(peer) for peer in self.cohort),
            place=self.place,
            combining=self.combining,
        )

    def opened(self) -> RoundOpened:
        """What watchers are told when it begins."""
        return RoundOpened(run=self.run, round=self.round, attempt=self.number, cohort=self.cohort, place=self.place)

    def aborted(self, reason: str) -> RoundAborted:
        """What all members are told when it ends without a result."""
        return RoundAborted(
            run=self.run, round=self.round, attempt=self.number, reason=reason[:1024], place=self.place
        )

    def stored(self) -> SaveAttempt:
        """What a restart needs of it."""
        return SaveAttempt(
            run=self.run,
            round=self.round,
            attempt=self.number,
            cohort=self.cohort,
            opened_at=self.opened_at,
            place=self.place,
            combining=self.combining,
        )

    def settled(self, peer: str) -> bool:
        """Whether nothing more is expected of a member: it reported or gave up."""
        return peer in self.failed or self.cohort.index(peer) in self._signatures

    def report(self, peer: str, result: Result, *, min_survivors: int) -> None:
        """Count one member's report and the signatures that ride along.

        Raises:
            RefusedError: not a member, a signature that does not verify, or a contradiction of an earlier report.
        """
        index = self._index(peer)
        if result.place != self.place:
            raise RefusedError(codes.NOT_IN_COHORT, f"{self.name}: the result is of another cohort of the round")
        payload = self._payload(result, min_survivors=min_survivors)
        by_index = {item.index: item.signature for item in result.signatures}
        if index not in by_index or len(by_index) != len(result.signatures):
            raise RefusedError(
                codes.BAD_SIGNATURE,
                f"{self.name}: expected the reporter's own signature (index {index}) and each index once",
            )
        self._verify(by_index, payload)
        known = self._signatures.get(index)
        if known is not None and known[0] != payload:
            raise RefusedError(codes.REFUSED, f"{self.name}: {short(peer)} already signed another result")
        for signer, signature in by_index.items():
            self._signatures.setdefault(signer, (payload, signature))
        self._results.setdefault(payload, result)
        self.failed.pop(peer, None)
        self._tallied = None

    def signers(self, result: Result) -> tuple[str, ...]:
        """Members that signed this very result."""
        payload = self._bytes(result)
        return tuple(self.cohort[i] for i, (signed, _) in sorted(self._signatures.items()) if signed == payload)

    def give_up(self, peer: str, reason: str, place: Place | None = None) -> None:
        """Count a member that stopped; a later report of it still counts.

        Raises:
            RefusedError: not a member, or of another cohort.
        """
        self._index(peer)
        if place not in (None, self.place):
            raise RefusedError(codes.NOT_IN_COHORT, f"{self.name}: the failure is of another cohort of the round")
        self.failed[peer] = reason

    def decision(self) -> Decision | None:
        """The result that a threshold of members signed, if one did."""
        if self._tallied is None:
            self._tallied = (self._tally(),)
        return self._tallied[0]

    def _tally(self) -> Decision | None:
        for payload, result in self._results.items():
            signed = sorted((i, s) for i, (p, s) in self._signatures.items() if p == payload)
            if len(signed) >= self.threshold:
                return Decision(
                    result=result,
                    signatures=tuple(MemberSignature(index=i, signature=s) for i, s in signed),
                    signers=tuple(self.cohort[i] for i, _ in signed),
                )
        return None

    def logged(self, decision: Decision, *, previous_digest: str, began: float, now: float) -> LogEntry:
        """The log's entry for a round that this cohort decided; `began` is when the round's first was named."""
        return LogEntry(
            run=self.run,
            round=self.round,
            attempt=self.number,
            round_id=self.round_id,
            cohort=self.cohort,
            survivors=decision.result.survivors,
            previous_digest=previous_digest,
            model_digest=decision.result.model_digest,
            metrics=decision.result.metrics,
            signatures=decision.signatures,
            seconds=max(0.0, now - began),
            logged_at=now,
            combining=self.combining,
        )

    def count_lost(self, now: float, absence_s: float) -> None:
        """Members away for too long are not waited for."""
        self.lost |= {peer for peer, since in self.absent_since.items() if now >= since + absence_s}

    def hopeless(self, now: float, absence_s: float) -> str | None:
        """Why no result can reach the threshold any more; None while one can."""
        self.count_lost(now, absence_s)
        tallies: dict[bytes, int] = {}
        undecided = 0
        for index, peer in enumerate(self.cohort):
            if index in self._signatures:
                payload = self._signatures[index][0]
                tallies[payload] = tallies.get(payload, 0) + 1
            elif peer not in self.failed and peer not in self.lost:
                undecided += 1
        best = max(tallies.values(), default=0)
        if best + undecided >= self.threshold:
            return None
        return (
            f"{self.name}: {best} reports agree and {undecided} are open, expected {self.threshold} "
            f"of {len(self.cohort)}; {len(tallies)} different results, {len(self.failed)} gave up"
            + (f" ({next(iter(self.failed.values()))})" if self.failed else "")
            + f", {len(self.lost - set(self.failed))} lost"
        )

    def went(self, peer: str, now: float) -> None:
        """A member's session ended."""
        self.absent_since[peer] = now

    def came_back(self, peer: str) -> bool:
        """A member has a session again; False where it was not away."""
        self.lost.discard(peer)
        return self.absent_since.pop(peer, None) is not None

    def next_absence(self, absence_s: float) -> float | None:
        """When the next absent member will count as lost."""
        waiting = (peer for peer in self.absent_since if peer not in self.lost and not self.settled(peer))
        return min((self.absent_since[peer] + absence_s for peer in waiting), default=None)

    def _index(self, peer: str) -> int:
        try:
            return self.cohort.index(peer)
        except ValueError:
            raise RefusedError(codes.NOT_IN_COHORT, f"{self.name}: {short(peer)} is not in its cohort") from None

    def _bytes(self, result: Result) -> bytes:
        return result_payload(self.round_id, result.model_digest, result.survivors, result.metrics)

    def _payload(self, result: Result, *, min_survivors: int) -> bytes:
        try:
            payload = self._bytes(result)
        except EncodingError as error:
            raise RefusedError(error.code, f"{self.name}: {error}") from None
        n, fewest = len(self.cohort), max(self.threshold, min_survivors)
        if len(result.survivors) < fewest or result.survivors[-1] >= n:
            raise RefusedError(
                codes.REFUSED,
                f"{self.name}: survivors {list(result.survivors)}; "
                f"expected at least {fewest} of indices 0 to {n - 1}",
            )
        return payload

    def _verify(self, by_index: dict[int, bytes], payload: bytes) -> None:
        for signer, signature in by_index.items():
            if signer >= len(self.cohort):
                raise RefusedError(codes.BAD_SIGNATURE, f"{self.name}: index {signer} of {len(self.cohort)} members")
            if self._signatures.get(signer) == (payload, signature):
                continue
            try:
                check_result_signature(self.cohort[signer], payload, signature)
            except SignatureError as error:
                raise RefusedError(codes.BAD_SIGNATURE, f"{self.name}: {error}") from None
