"""One run: who takes part, and which cohort works on which round (spec 03 §5 and §6).

    Waiting --(enough peers ready; `gather_s` over)--> Working(attempt)
    Working --(threshold of results)--> Settling --(everybody online reported, or `settle_s` over)--> Working ...
    Working --(hopeless or overdue)--> Working(next attempt) | Waiting | Ended("failed")
    Settling --(last round logged)--> Ended("finished");   any --stop--> Ended("stopped")

The machine does no I/O: it is told of events with `now` (seconds since 1970) and fills an `Outbox`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from protocol.identity import short
from protocol.signaling import (
    Offer,
    PeerBack,
    PeerGone,
    Ready,
    Result,
    RoundFailed,
    RoundLogged,
    RunChanged,
    RunState,
    RunStatus,
    codes,
)
from protocol.signaling.rounds import GoneReason
from signaling.attempt import Attempt, Decision
from signaling.config import Timing
from signaling.errors import RefusedError
from signaling.grouped_attempt import GroupedAttempt
from signaling.naming import name_cohorts
from signaling.outbox import Outbox, SaveEntry, SaveRun
from signaling.participants import Participants
from signaling.run_phases import AnyAttempt, Ended, Peers, Phase, RunFacts, Settling, Waiting, Working

__all__ = ["RunMachine"]


@dataclass
class RunMachine:
    """One run's state; see the module's drawing."""

    facts: RunFacts
    timing: Timing
    peers: Peers
    model_digest: str
    round: int = 0
    """Logged rounds."""
    number: int = 0
    """The latest attempt at round `round + 1`; 0 before the first."""
    phase: Phase = field(default_factory=Waiting)
    watchers: set[str] = field(default_factory=set)
    past: dict[int, AnyAttempt] = field(default_factory=dict)
    """Attempts at round `round + 1` by number: a late result of any of them still decides the round."""
    _last_cohort: tuple[str, ...] = ()
    _last_decision: AnyAttempt | None = None

    def __post_init__(self) -> None:
        self.participants = Participants(self.run, self.peers)

    # --- what others ask ---------------------------------------------------------------------------------------

    @property
    def run(self) -> str:
        """The run id."""
        return self.facts.run

    @property
    def ended(self) -> bool:
        """Whether the run is in a final state."""
        return isinstance(self.phase, Ended)

    @property
    def state(self) -> RunState:
        """The state as peers see it."""
        match self.phase:
            case Waiting():
                return "waiting"
            case Ended(state=state):
                return state
            case _:
                return "running"

    def status(self) -> RunStatus:
        """The state with its counts."""
        return RunStatus(
            run=self.run,
            plan=self.facts.plan,
            name=self.facts.terms.name,
            author=self.facts.author,
            state=self.state,
            reason=self.phase.reason if isinstance(self.phase, Ended) else "",
            rounds=self.facts.terms.rounds,
            round=self.round,
            attempt=self.number,
            model_digest=self.model_digest,
            accepted=len(self.participants.accepted),
            ready=len(self.participants.ready(self.round)),
            opened_at=self.facts.opened_at,
        )

    def offer(self) -> Offer:
        """What a fitting node is sent."""
        return self.facts.offer(self.round, self.model_digest)

    def holders(self) -> tuple[str, ...]:
        """Online peers that hold the current model."""
        return self.participants.holders(self.round)

    def concerns(self, peer: str) -> bool:
        """Whether a peer's going makes a difference to this run."""
        return peer in self.participants.accepted or peer in self.watchers or self.attempt_of(peer) is not None

    def may_fetch(self, peer: str) -> bool:
        """Whether a peer may be introduced to holders of the model: its author, members, and those that consented."""
        return peer in self.participants.accepted or peer in (self.facts.author, *self.facts.terms.members)

    def attempt_of(self, peer: str) -> AnyAttempt | None:
        """The open attempt that names a peer."""
        if isinstance(self.phase, Working) and self.phase.attempt.names(peer):
            return self.phase.attempt
        return None

    def via_cohorts(self) -> tuple[Attempt, ...]:
        """Cohorts whose members may relay to each other: those of the open attempt, or of the last until the next."""
        if isinstance(self.phase, Working | Settling):
            return self.phase.attempt.parts
        return tuple(part for attempt in tuple(self.past.values())[-1:] for part in attempt.parts)

    def next_deadline(self) -> float | None:
        """When `timer` wants to be called."""
        match self.phase:
            case Waiting(gather_until=until):
                return until
            case Working(attempt=attempt, overdue_at=overdue_at):
                absence = attempt.next_absence(self.timing.absence_s)
                return overdue_at if absence is None else min(absence, overdue_at)
            case Settling():
                return self.phase.join_until if self._awaited() else self.phase.until
            case Ended():
                return None

    # --- events ------------------------------------------------------------------------------------------------

    def accept(self, peer: str, dataset: str | None, out: Outbox, now: float) -> None:
        """The owner of a node consents.

        Raises:
            RefusedError: the run has ended, or lists members without this peer.
        """
        members = self.facts.terms.members
        if members and peer not in members:
            raise RefusedError(codes.NOT_ALLOWED, f"run {short(self.run)}: {short(peer)} is not among its members")
        self.participants.consents(peer, dataset, waits=not self.ended)
        attempt = self.attempt_of(peer)
        if attempt is not None:
            if (start := attempt.start_for(peer, self.peers.member)) is not None:
                out.send(peer, start)
            self._judge(out, now)
        self._status_changed(out)
        self.advance(out, now)

    def ready(self, peer: str, message: Ready, out: Outbox, now: float) -> None:
        """A consenting node holds a model.

        Raises:
            RefusedError: no consent, or another model than the run's current one.
        """
        if peer not in self.participants.accepted:
            raise RefusedError(codes.NOT_ALLOWED, f"run {short(self.run)}: {short(peer)} has not accepted it")
        if (message.round, message.model_digest) != (self.round, self.model_digest):
            raise RefusedError(
                codes.STALE_MODEL,
                f"run {short(self.run)} is at round {self.round} with model {short(self.model_digest)}, "
                f"{short(peer)} holds round {message.round} with model {short(message.model_digest)}",
            )
        self.participants.holds(peer, self.round)
        self.advance(out, now)
        self._status_changed(out)

    def withdraw(self, peer: str, out: Outbox, now: float) -> None:
        """Consent is taken back, or was never given."""
        self.participants.forget(peer)
        attempt = self.attempt_of(peer)
        if attempt is not None:
            attempt.give_up(peer, "its owner withdrew")
            self._judge(out, now)

    def result(self, peer: str, message: Result, out: Outbox, now: float) -> None:
        """A member reports what a round gave.

        Raises:
            RefusedError: closed round, not a member, bad signature or contradiction.
        """
        if self._confirms_last(peer, message):
            self.advance(out, now)
            return
        attempt = self.past.get(message.attempt) if message.round == self.round + 1 else None
        if attempt is None or self.ended:
            raise RefusedError(
                codes.ROUND_CLOSED,
                f"run {short(self.run)} is {self.state} at round {self.round + 1} attempt {self.number}; "
                f"got a result of round {message.round} attempt {message.attempt}",
            )
        attempt.report(peer, message, min_survivors=self.facts.terms.min_survivors)
        decision = attempt.decision()
        if decision is not None:
            self._log(attempt, decision, out, now)
        else:
            self._judge(out, now)

    def round_failed(self, peer: str, message: RoundFailed, out: Outbox, now: float) -> None:
        """A member gave an attempt up; about an attempt that is closed already this changes nothing.

        Raises:
            RefusedError: not a member.
        """
        if isinstance(self.phase, Working):
            attempt = self.phase.attempt
            if (message.round, message.attempt) == (attempt.round, attempt.number):
                attempt.give_up(peer, message.reason, message.place)
                self._judge(out, now)

    def came(self, peer: str, out: Outbox) -> None:
        """A member's session is back."""
        if isinstance(self.phase, Working) and self.phase.attempt.came_back(peer):
            out.send(self.phase.attempt.others(peer), PeerBack(run=self.run, peer=peer))

    def went(self, peer: str, reason: GoneReason, out: Outbox, now: float) -> None:
        """A peer's session ended: it must consent and be ready anew, but may still finish an open round."""
        self.watchers.discard(peer)
        known = peer in self.participants.accepted
        self.participants.forget(peer)
        attempt = self.attempt_of(peer)
        if attempt is not None:
            attempt.went(peer, now)
            out.send(attempt.others(peer), PeerGone(run=self.run, peer=peer, reason=reason))
            self._judge(out, now)
        elif known:
            self.advance(out, now)
        if known:
            self._status_changed(out)

    def joining(self, peer: str) -> None:
        """A consenting peer began to fetch the model: the next cohort waits for it a little."""
        self.participants.fetches(peer, self.round)

    def stop(self, reason: str, out: Outbox) -> None:
        """The author ends the run."""
        if not self.ended:
            self._end("stopped", reason, out)

    def timer(self, out: Outbox, now: float) -> None:
        """Do what is due."""
        if isinstance(self.phase, Working):
            self._judge(out, now, overdue=now >= self.phase.overdue_at)
        self.advance(out, now)

    def restore(self, attempts: Sequence[AnyAttempt], *, state: RunState, reason: str, now: float) -> None:
        """After a restart of the signaling server: `attempts` are those at the open round, ascending.

        Where the run was "running", the latest is open again with all its members away.
        """
        if state not in ("waiting", "running"):
            self.phase = Ended(state, reason)
            return
        for attempt in attempts:
            self.past[attempt.number] = attempt
        if attempts:
            latest = attempts[-1]
            for peer in latest.cohort:
                latest.went(peer, now)
            self.number = latest.number
            self._last_cohort = latest.cohort
            if state == "running":
                self.phase = Working(latest, now + self._allowed_s())

    def advance(self, out: Outbox, now: float) -> None:
        """Name the next cohort if it is time to."""
        match self.phase:
            case Settling():
                if self._settled(self.phase, now):
                    self._open_or_wait(out, now)
            case Waiting(gather_until=until):
                if not self._enough():
                    self.phase = Waiting()
                elif self.participants.enough(self.facts.room, self.round) or (until is not None and now >= until):
                    self._open(out, now)
                elif until is None:
                    self.phase = Waiting(now + self.timing.gather_s)
            case _:
                pass

    # --- inside ------------------------------------------------------------------------------------------------

    def _enough(self) -> bool:
        return self.participants.enough(self.facts.terms.min_cohort, self.round)

    def _audience(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.participants.accepted, *self._last_cohort, *self.watchers]))

    def _allowed_s(self) -> float:
        # The peers' own stage deadlines come first: the signaling server gives up a little after them.
        stages_ms: int = sum(msgspec.structs.astuple(self.facts.terms.deadlines))
        return stages_ms / 1000 + self.timing.settle_s

    def _status_changed(self, out: Outbox) -> None:
        if self.watchers:
            out.send(self.watchers, RunChanged(status=self.status()))

    def _save(self, out: Outbox) -> None:
        out.write(
            SaveRun(
                run=self.run,
                state=self.state,
                reason=self.phase.reason if isinstance(self.phase, Ended) else "",
                round=self.round,
                attempt=self.number,
                model_digest=self.model_digest,
            )
        )

    def _open_or_wait(self, out: Outbox, now: float) -> None:
        if self._enough():
            self._open(out, now)
        else:
            self.phase = Waiting()
            self._save(out)
            self._status_changed(out)

    def _open(self, out: Outbox, now: float) -> None:
        self.number += 1
        attempt = name_cohorts(
            self.participants.ready(self.round),
            facts=self.facts,
            together=self._last_cohort,
            round_number=self.round + 1,
            number=self.number,
            model_digest=self.model_digest,
            opened_at=now,
        )
        self.past[self.number] = attempt
        self._last_cohort = attempt.cohort
        self._set_to_work(attempt, attempt.parts, out, now)

    def _set_to_work(self, attempt: AnyAttempt, parts: Sequence[Attempt], out: Outbox, now: float) -> None:
        self.phase = Working(attempt, now + self._allowed_s())
        for part in parts:
            out.write(part.stored())
        self._save(out)
        for part in parts:
            out.send(part.cohort, part.start_message(self.peers.member))
            out.send(self.watchers, part.opened())

    def _judge(self, out: Outbox, now: float, *, overdue: bool = False) -> None:
        """After anything that changed an open attempt: go on to the next level, or give the attempt up."""
        if not isinstance(self.phase, Working):
            return
        attempt = self.phase.attempt
        if isinstance(attempt, GroupedAttempt):
            overdue = self._judge_groups(attempt, out, now, overdue=overdue)
        reason = attempt.hopeless(now, self.timing.absence_s)
        if reason is None and overdue:
            reason = f"{attempt.name}: no result within its deadlines"
        if reason is not None:
            self._abort(reason, out, now)

    def _judge_groups(self, attempt: GroupedAttempt, out: Outbox, now: float, *, overdue: bool) -> bool:
        """Let failed groups go and name delegates once the others are done; gives whether the attempt is overdue."""
        if attempt.top is not None:
            return overdue
        for group, reason in attempt.close_hopeless(now, self.timing.absence_s, overdue=overdue):
            out.send(group.cohort, group.aborted(reason))
        if attempt.combinable:
            self._set_to_work(attempt, (attempt.name_delegates(now),), out, now)
        return False

    def _abort(self, reason: str, out: Outbox, now: float) -> None:
        if not isinstance(self.phase, Working):
            return
        attempt = self.phase.attempt
        for part in attempt.standing:
            out.send(part.cohort, part.aborted(reason))
        if self.number > self.facts.terms.retries:
            self._end("failed", f"{self.number} attempts at round {attempt.round}; the last: {reason}", out)
        else:
            self._open_or_wait(out, now)

    def _log(self, attempt: AnyAttempt, decision: Decision, out: Outbox, now: float) -> None:
        last = attempt.deciding
        assert last is not None
        entry = last.logged(decision, previous_digest=self.model_digest, began=attempt.opened_at, now=now)
        self.participants.left_out(last.cohort, self.round)
        self.round, self.number, self.model_digest = attempt.round, 0, entry.model_digest
        self.past.clear()
        self._last_decision = attempt
        for peer in decision.signers:
            self.participants.holds(peer, self.round)
        out.write(SaveEntry(entry))
        out.send(self._audience(), RoundLogged(entry=entry))
        if self.round == self.facts.terms.rounds:
            self._end("finished", "", out)
            return
        self.phase = Settling(attempt, now + self.timing.settle_s, now + self.timing.join_s)
        self.advance(out, now)
        if isinstance(self.phase, Settling):
            self._save(out)

    def _confirms_last(self, peer: str, message: Result) -> bool:
        """Take a report that comes after its round was decided: it tells that its sender holds the model too."""
        if (message.round, message.model_digest) != (self.round, self.model_digest):
            return False
        signers: tuple[str, ...] = (peer,)
        if self._last_decision is not None:  # absent after a restart: then it only says what `ready` would
            attempt = self._last_decision
            if message.attempt != attempt.number:
                return False
            attempt.report(peer, message, min_survivors=self.facts.terms.min_survivors)
            # whose signature rides along is not waited for any more, so it has to count as ready too
            signers = attempt.signers(message)
        for signer in signers:
            self.participants.holds(signer, self.round)
        return True

    def _settled(self, phase: Settling, now: float) -> bool:
        last = phase.attempt.deciding
        assert last is not None
        reported = all(last.settled(peer) for peer in last.cohort if self.peers.online(peer))
        if not (reported or now >= phase.until):
            return False
        if not self._awaited() or now < phase.join_until:
            return not self._awaited()
        self.participants.lose_patience()
        return True

    def _awaited(self) -> bool:
        """Whether there are late joiners that the next cohort has room and patience for."""
        full = self.participants.enough(self.facts.room, self.round)
        return not full and any(True for _ in self.participants.awaited())

    def _end(self, state: RunState, reason: str, out: Outbox) -> None:
        if isinstance(self.phase, Working) and self.phase.attempt.round == self.round + 1:
            for part in self.phase.attempt.standing:
                out.send(part.cohort, part.aborted(f"run {state}"))
        self.phase = Ended(state, reason[:1024])
        self._save(out)
        out.send(self._audience(), RunChanged(status=self.status()))
