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

from protocol.cohorts import arrange
from protocol.identity import PeerId, short
from protocol.signaling import (
    LogEntry,
    Offer,
    PeerBack,
    PeerGone,
    Ready,
    Result,
    RoundAborted,
    RoundFailed,
    RoundLogged,
    RoundOpened,
    RunChanged,
    RunState,
    RunStatus,
    codes,
)
from protocol.signaling.rounds import GoneReason
from signaling.attempt import Attempt, Decision
from signaling.config import Timing
from signaling.errors import RefusedError
from signaling.grouped_attempt import GroupedAttempt, group_attempts
from signaling.outbox import Outbox, SaveAttempt, SaveEntry, SaveRun
from signaling.run_phases import AnyAttempt, Ended, Peers, Phase, RunFacts, Settling, Waiting, Working

__all__ = ["RunMachine"]

JOIN_TRIES = 2
"""Rounds that wait for one late joiner after each `accept`: without a bound it could stall a run."""


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
    accepted: dict[str, str | None] = field(default_factory=dict)
    """Peers that consented, in that order, with the dataset they named."""
    held: dict[str, int] = field(default_factory=dict)
    """How many logged rounds the model has that a peer holds."""
    watchers: set[str] = field(default_factory=set)
    past: dict[int, AnyAttempt] = field(default_factory=dict)
    """Attempts at round `round + 1` by number: a late result of any of them still decides the round."""
    _last_cohort: tuple[str, ...] = ()
    _joining: dict[str, int] = field(default_factory=dict)
    _last_decision: AnyAttempt | None = None

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
            accepted=sum(1 for peer in self.accepted if self.peers.online(peer)),
            ready=len(self._ready()),
            opened_at=self.facts.opened_at,
        )

    def offer(self) -> Offer:
        """What a fitting node is sent."""
        return Offer(
            run=self.run,
            envelope=self.facts.envelope,
            plan_envelope=self.facts.plan_envelope,
            round=self.round,
            model_digest=self.model_digest,
        )

    def holders(self) -> tuple[str, ...]:
        """Online peers that hold the current model."""
        return tuple(peer for peer, at in self.held.items() if at == self.round and self.peers.online(peer))

    def concerns(self, peer: str) -> bool:
        """Whether a peer's going makes a difference to this run."""
        return peer in self.accepted or peer in self.watchers or self.attempt_of(peer) is not None

    def may_see(self, peer: str) -> bool:
        """Whether a peer may read the run's status and log: anybody where the run has no list of members."""
        members = self.facts.terms.members
        return not members or peer == self.facts.author or peer in members

    def may_fetch(self, peer: str) -> bool:
        """Whether a peer may be introduced to holders of the model: its author, members, and those that consented."""
        return peer == self.facts.author or peer in self.facts.terms.members or peer in self.accepted

    def attempt_of(self, peer: str) -> AnyAttempt | None:
        """The open attempt that names a peer."""
        if isinstance(self.phase, Working) and peer in self.phase.attempt.cohort:
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
                return self._settle_deadline(self.phase)
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
        if not self.ended:
            self._joining.setdefault(peer, JOIN_TRIES)
        self.accepted[peer] = dataset
        attempt = self.attempt_of(peer)
        if attempt is not None:
            out.send(peer, attempt.start_for(peer, self.peers.member))
            self._judge(out, now)
        self._status_changed(out)
        self.advance(out, now)

    def ready(self, peer: str, message: Ready, out: Outbox, now: float) -> None:
        """A consenting node holds a model.

        Raises:
            RefusedError: no consent, or another model than the run's current one.
        """
        if peer not in self.accepted:
            raise RefusedError(codes.NOT_ALLOWED, f"run {short(self.run)}: {short(peer)} has not accepted it")
        if (message.round, message.model_digest) != (self.round, self.model_digest):
            raise RefusedError(
                codes.STALE_MODEL,
                f"run {short(self.run)} is at round {self.round} with model {short(self.model_digest)}, "
                f"{short(peer)} holds round {message.round} with model {short(message.model_digest)}",
            )
        self._holds(peer)
        self.advance(out, now)
        self._status_changed(out)

    def withdraw(self, peer: str, out: Outbox, now: float) -> None:
        """Consent is taken back, or was never given."""
        self._forget(peer)
        self._give_up(peer, "its owner withdrew", out, now)

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
        known = peer in self.accepted
        self._forget(peer)
        if isinstance(self.phase, Working) and peer in self.phase.attempt.cohort:
            attempt = self.phase.attempt
            attempt.went(peer, now)
            out.send(attempt.others(peer), PeerGone(run=self.run, peer=peer, reason=reason))
            self._judge(out, now)
        elif known:
            self.advance(out, now)
        if known:
            self._status_changed(out)

    def joining(self, peer: str) -> None:
        """A consenting peer began to fetch the model: the next cohort waits for it a little."""
        if peer in self.accepted and self.held.get(peer) != self.round:
            self._joining.setdefault(peer, JOIN_TRIES)

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
                ready = len(self._ready())
                if ready < self.facts.terms.min_cohort:
                    self.phase = Waiting()
                elif ready >= self._room or (until is not None and now >= until):
                    self._open(out, now)
                elif until is None:
                    self.phase = Waiting(now + self.timing.gather_s)
            case _:
                pass

    # --- inside ------------------------------------------------------------------------------------------------

    def _ready(self) -> list[str]:
        return [
            peer
            for peer in self.accepted
            if self.held.get(peer) == self.round and self.peers.online(peer) and not self.peers.busy(peer, self.run)
        ]

    def _holds(self, peer: str) -> None:
        self.held[peer] = self.round
        self._joining.pop(peer, None)

    def _forget(self, peer: str) -> None:
        self.accepted.pop(peer, None)
        self.held.pop(peer, None)
        self._joining.pop(peer, None)

    @property
    def _room(self) -> int:
        """Peers that one round can take."""
        return self.facts.terms.cohort_size * self.facts.terms.cohorts

    def _audience(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.accepted, *self._last_cohort, *self.watchers]))

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
        if len(self._ready()) >= self.facts.terms.min_cohort:
            self._open(out, now)
        else:
            self.phase = Waiting()
            self._save(out)
            self._status_changed(out)

    def _open(self, out: Outbox, now: float) -> None:
        place = {peer: at for at, peer in enumerate(self._last_cohort)}  # who was together stays together
        terms = self.facts.terms
        cohorts = arrange(
            [PeerId(peer) for peer in sorted(self._ready(), key=lambda peer: place.get(peer, len(place)))],
            size=terms.cohort_size,
            smallest=terms.min_cohort,
            most=terms.cohorts,
        )
        self.number += 1
        attempt: AnyAttempt
        if len(cohorts) == 1:
            attempt = Attempt(
                run=self.run,
                round=self.round + 1,
                number=self.number,
                cohort=cohorts[0],
                model_digest=self.model_digest,
                opened_at=now,
            )
        else:
            attempt = group_attempts(
                cohorts,
                run=self.run,
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
            out.write(
                SaveAttempt(
                    run=self.run,
                    round=part.round,
                    attempt=part.number,
                    cohort=part.cohort,
                    opened_at=part.opened_at,
                    place=part.place,
                    combining=part.combining,
                )
            )
        self._save(out)
        for part in parts:
            out.send(part.cohort, part.start_message(self.peers.member))
            opened = RoundOpened(
                run=self.run, round=part.round, attempt=part.number, cohort=part.cohort, place=part.place
            )
            out.send(self.watchers, opened)

    def _give_up(self, peer: str, reason: str, out: Outbox, now: float) -> None:
        if isinstance(self.phase, Working) and peer in self.phase.attempt.cohort:
            self.phase.attempt.give_up(peer, reason)
            self._judge(out, now)

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
            out.send(group.cohort, self._aborted(group, reason))
        if attempt.combinable:
            self._set_to_work(attempt, (attempt.name_delegates(now),), out, now)
        return False

    def _aborted(self, part: Attempt, reason: str) -> RoundAborted:
        return RoundAborted(
            run=self.run, round=part.round, attempt=part.number, reason=reason[:1024], place=part.place
        )

    def _abort(self, reason: str, out: Outbox, now: float) -> None:
        if not isinstance(self.phase, Working):
            return
        attempt = self.phase.attempt
        for part in attempt.parts:
            out.send(part.cohort, self._aborted(part, reason))
        if self.number > self.facts.terms.retries:
            self._end("failed", f"{self.number} attempts at round {attempt.round}; the last: {reason}", out)
        else:
            self._open_or_wait(out, now)

    def _log(self, attempt: AnyAttempt, decision: Decision, out: Outbox, now: float) -> None:
        result, last = decision.result, attempt.deciding
        assert last is not None
        entry = LogEntry(
            run=self.run,
            round=attempt.round,
            attempt=attempt.number,
            round_id=last.round_id,
            cohort=last.cohort,
            survivors=result.survivors,
            previous_digest=self.model_digest,
            model_digest=result.model_digest,
            metrics=result.metrics,
            signatures=decision.signatures,
            seconds=max(0.0, now - attempt.opened_at),
            logged_at=now,
            combining=last.combining,
        )
        self._await_left_out(last)
        self.round, self.number, self.model_digest = attempt.round, 0, result.model_digest
        self.past.clear()
        self._last_decision = attempt
        for peer in decision.signers:
            if peer in self.accepted:
                self._holds(peer)
        out.write(SaveEntry(entry))
        out.send(self._audience(), RoundLogged(entry=entry))
        if self.round == self.facts.terms.rounds:
            self._end("finished", "", out)
            return
        self.phase = Settling(attempt, now + self.timing.settle_s, now + self.timing.join_s)
        self.advance(out, now)
        if isinstance(self.phase, Settling):
            self._save(out)

    def _await_left_out(self, attempt: Attempt) -> None:
        """Who was not in the cohort that gave the model misses it: without patience, fast rounds starve them."""
        for peer, at in self.held.items():
            if at == self.round and peer not in attempt.cohort:
                self._joining.setdefault(peer, JOIN_TRIES)

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
            if signer in self.accepted:
                self._holds(signer)
        return True

    def _settled(self, phase: Settling, now: float) -> bool:
        reported = all(phase.attempt.settled(peer) for peer in phase.attempt.cohort if self.peers.online(peer))
        if not (reported or now >= phase.until):
            return False
        if not self._awaited() or now < phase.join_until:
            return not self._awaited()
        for peer in self._awaited():
            self._joining[peer] -= 1
        return True

    def _awaited(self) -> list[str]:
        """Late joiners the next cohort has room for and that have not used up the patience they are given."""
        if len(self._ready()) >= self._room:
            return []
        return [peer for peer, tries in self._joining.items() if tries > 0 and self.peers.online(peer)]

    def _settle_deadline(self, phase: Settling) -> float:
        return phase.join_until if self._awaited() else phase.until

    def _end(self, state: RunState, reason: str, out: Outbox) -> None:
        if isinstance(self.phase, Working) and self.phase.attempt.round == self.round + 1:
            for part in self.phase.attempt.parts:
                out.send(part.cohort, self._aborted(part, f"run {state}"))
        self.phase = Ended(state, reason[:1024])
        self._save(out)
        out.send(self._audience(), RunChanged(status=self.status()))
