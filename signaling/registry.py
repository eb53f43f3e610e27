"""Who is online and which runs are open: the whole signaling server without I/O (spec 03).

Events come in with `now` (seconds since 1970) and give an `Outbox`: what to store first, and what to send then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from protocol.errors import SignatureError
from protocol.identity import short
from protocol.manifest import explain_misfit
from protocol.signaling import (
    Accept,
    Decline,
    Done,
    Introduce,
    Introduced,
    Introduction,
    Ready,
    Register,
    Relay,
    Relayed,
    Request,
    Result,
    RoundFailed,
    RunReply,
    StopRun,
    Unwatch,
    Watch,
    Withdraw,
    check_sealing_key,
    codes,
)
from protocol.signaling.base import Member
from protocol.signaling.rounds import GoneReason
from signaling.config import Limits, Timing
from signaling.errors import RefusedError
from signaling.introductions import Introductions
from signaling.outbox import Outbox, Send
from signaling.run_machine import RunMachine
from signaling.run_phases import Peers, RunFacts, Working

__all__ = ["Registry"]

MAX_HOLDERS = 16
"""Holders one introduction names: enough to survive a few that leave, few enough to stay quick."""


@dataclass
class _Session:
    registration: Register | None = None
    declined: set[str] = field(default_factory=set)


class Registry:
    """Sessions, open runs and introductions. `new_id` gives 64 random hexadecimal digits."""

    def __init__(self, *, limits: Limits, timing: Timing, new_id: Callable[[], str]) -> None:
        self.runs: dict[str, RunMachine] = {}
        self._limits = limits
        self._timing = timing
        self._new_id = new_id
        self._sessions: dict[str, _Session] = {}
        self._introductions = Introductions(seconds=timing.introduction_s, per_peer=limits.introductions_per_peer)
        self._ids: dict[str, set[str]] = {}
        self._working: dict[str, RunMachine] = {}
        self._run_of: dict[str, str] = {}
        """Round id to run id, for the attempts whose members may relay."""
        self._peers = Peers(online=self._sessions.__contains__, member=self._member, busy=self._busy)

    # --- sessions ----------------------------------------------------------------------------------------------

    @property
    def online(self) -> int:
        """Peers with a session."""
        return len(self._sessions)

    @property
    def nodes(self) -> int:
        """Peers that registered as a node."""
        return sum(1 for session in self._sessions.values() if session.registration is not None)

    def connected(self, peer: str) -> Outbox:
        """A peer has proved its identity and has no other session."""
        out = Outbox()
        self._sessions[peer] = _Session()
        for machine in self.runs.values():
            machine.came(peer, out)
        return out

    def disconnected(self, peer: str, reason: GoneReason, now: float) -> Outbox:
        """A session ended; `reason` is "left", "lost" or "replaced"."""
        out = Outbox()
        if self._sessions.pop(peer, None) is not None:
            for machine in [item for item in self.runs.values() if item.concerns(peer)]:
                machine.went(peer, reason, out, now)
                self._after(machine, out, now)
        return out

    # --- runs --------------------------------------------------------------------------------------------------

    def open_run(self, facts: RunFacts, model_digest: str, now: float) -> Outbox:
        """Take in a run that was stored, and offer it to the nodes it fits."""
        out = Outbox()
        machine = self.restore_run(facts, model_digest)
        for peer, session in self._sessions.items():
            if self._wants(machine, peer, session):
                out.send(peer, machine.offer())
        self._after(machine, out, now)
        return out

    def restore_run(self, facts: RunFacts, model_digest: str, *, round_number: int = 0) -> RunMachine:
        """Take in a run without offering it: no peer is connected yet."""
        machine = RunMachine(
            facts=facts,
            timing=self._timing,
            peers=self._peers,
            model_digest=model_digest,
            round=round_number,
        )
        self.runs[facts.run] = machine
        self.reindex(machine)
        return machine

    def open_runs(self, author: str | None = None) -> int:
        """Runs that are waiting or running, of one author or of all."""
        return sum(1 for m in self.runs.values() if not m.ended and author in (None, m.facts.author))

    def next_deadline(self) -> float | None:
        """When `timer` wants to be called; None while nothing is due."""
        times = [at for machine in self.runs.values() if (at := machine.next_deadline()) is not None]
        return min(times, default=None)

    def timer(self, now: float) -> Outbox:
        """Do what is due by `now`."""
        out = Outbox()
        self._introductions.expire(now)
        for machine in list(self.runs.values()):
            at = machine.next_deadline()
            if at is not None and at <= now:
                machine.timer(out, now)
                self._after(machine, out, now)
        return out

    # --- requests ----------------------------------------------------------------------------------------------

    def handle(self, peer: str, request: Request, now: float) -> Outbox:
        """Carry out one request of an online peer; the reply is in the outbox.

        Raises:
            RefusedError: it is refused, and nothing has changed.
        """
        out = Outbox()
        match request:
            case Relay():
                self._relay(peer, request, out, now)
                return out
            case Register():
                self._register(peer, request, out)
            case Introduce():
                self._introduce(peer, request, out, now)
            case _:
                self._run_request(peer, request, out, now)
        return out

    def _run_request(self, peer: str, request: Request, out: Outbox, now: float) -> None:
        machine = self.machine(getattr(request, "run", ""))
        match request:
            case Accept():
                self._check_fit(machine, peer, request.dataset)
                machine.accept(peer, request.dataset, out, now)
                out.sends.insert(0, Send((peer,), RunReply(re=request.id, status=machine.status())))
                self._after(machine, out, now)
                return
            case Ready():
                machine.ready(peer, request, out, now)
            case Decline():
                self._sessions[peer].declined.add(machine.run)
                machine.withdraw(peer, out, now)
            case Withdraw():
                machine.withdraw(peer, out, now)
            case Result():
                machine.result(peer, request, out, now)
            case RoundFailed():
                machine.round_failed(peer, request, out, now)
            case StopRun():
                self._stop(machine, peer, request, out)
            case Watch():
                self._watch(machine, peer, request, out)
                return
            case Unwatch():
                machine.watchers.discard(peer)
            case _:
                raise RefusedError(codes.REFUSED, f"{type(request).__name__} is not handled here")
        out.sends.insert(0, Send((peer,), Done(re=request.id)))
        self._after(machine, out, now)

    def machine(self, run: str) -> RunMachine:
        """The run of that id.

        Raises:
            RefusedError: no such run is in memory.
        """
        machine = self.runs.get(run)
        if machine is None:
            raise RefusedError(codes.UNKNOWN_RUN, f"run {short(run)} is not known here")
        return machine

    def _register(self, peer: str, request: Register, out: Outbox) -> None:
        if (request.sealing_key is None) != (request.sealing_signature is None):
            raise RefusedError(codes.BAD_SIGNATURE, "a sealing key and its signature come together or not at all")
        if request.sealing_key is not None and request.sealing_signature is not None:
            try:
                check_sealing_key(peer, request.sealing_key, request.sealing_signature)
            except SignatureError as error:
                raise RefusedError(codes.BAD_SIGNATURE, str(error)) from None
        session = self._sessions[peer]
        session.registration = request
        session.declined.clear()
        out.send(peer, Done(re=request.id))
        for machine in self.runs.values():
            if self._wants(machine, peer, session):
                out.send(peer, machine.offer())

    def _wants(self, machine: RunMachine, peer: str, session: _Session) -> bool:
        members = machine.facts.terms.members
        return (
            session.registration is not None
            and not machine.ended
            and machine.run not in session.declined
            and peer not in machine.participants.accepted
            and (not members or peer in members)
            and any(explain_misfit(machine.facts.manifest, item) is None for item in session.registration.datasets)
        )

    def _check_fit(self, machine: RunMachine, peer: str, dataset: str | None) -> None:
        registration = self._sessions[peer].registration
        if registration is None:
            raise RefusedError(codes.NOT_ALLOWED, f"{short(peer)} has not registered as a node")
        named = [item for item in registration.datasets if dataset in (None, item.name)]
        reasons = [explain_misfit(machine.facts.manifest, item) for item in named]
        if not reasons:
            raise RefusedError("schema-mismatch", f"{short(peer)} has registered no dataset {dataset or ''!r}")
        if None not in reasons:
            raise RefusedError("schema-mismatch", str(reasons[0]))

    def _stop(self, machine: RunMachine, peer: str, request: StopRun, out: Outbox) -> None:
        if peer != machine.facts.author:
            raise RefusedError(
                codes.NOT_ALLOWED,
                f"run {short(machine.run)} is by {short(machine.facts.author)}; {short(peer)} cannot stop it",
            )
        if machine.ended:
            raise RefusedError(codes.RUN_CLOSED, f"run {short(machine.run)} is {machine.state} already")
        machine.stop(request.reason, out)

    def _watch(self, machine: RunMachine, peer: str, request: Watch, out: Outbox) -> None:
        if not machine.facts.may_see(peer):
            raise RefusedError(codes.UNKNOWN_RUN, f"run {short(request.run)} is not known here")
        machine.watchers.add(peer)
        out.send(peer, RunReply(re=request.id, status=machine.status(), envelope=machine.facts.envelope))

    def _introduce(self, peer: str, request: Introduce, out: Outbox, now: float) -> None:
        machine = self.machine(request.run)
        if not machine.may_fetch(peer):
            raise RefusedError(
                codes.NOT_ALLOWED,
                f"run {short(machine.run)}: {short(peer)} is neither its author nor has it accepted the run",
            )
        via = self._new_id()
        holders = tuple(holder for holder in machine.holders() if holder != peer)
        if len(holders) > MAX_HOLDERS:  # others for everybody: after a round of many cohorts, many ask at once
            first = int(via, 16) % len(holders)
            holders = (holders[first:] + holders[:first])[:MAX_HOLDERS]
        seconds = self._timing.introduction_s
        self._introductions.open(via, peer, holders, now)
        machine.joining(peer)
        out.send(
            peer,
            Introduction(
                re=request.id,
                via=via,
                run=machine.run,
                round=machine.round,
                model_digest=machine.model_digest,
                holders=tuple(self._member(holder) for holder in holders),
                seconds=seconds,
            ),
        )
        out.send(holders, Introduced(via=via, run=machine.run, peer=self._member(peer), seconds=seconds))

    def _relay(self, peer: str, request: Relay, out: Outbox, now: float) -> None:
        if not (self._same_cohort(request.via, peer, request.to) or self._introduced(request, peer, now)):
            raise RefusedError(
                codes.NOT_IN_COHORT,
                f"{short(peer)} and {short(request.to)} are not together in {short(request.via)}",
            )
        if request.to not in self._sessions:
            raise RefusedError(codes.PEER_OFFLINE, f"{short(request.to)} is not connected")
        out.send(request.to, Relayed(sender=peer, via=request.via, kind=request.kind, payload=request.payload))

    def _introduced(self, request: Relay, peer: str, now: float) -> bool:
        return self._introductions.allows(request.via, peer, request.to, now)

    def _same_cohort(self, via: str, sender: str, to: str) -> bool:
        machine = self.runs.get(self._run_of.get(via, ""))
        if machine is None:
            return False
        return any(
            cohort.round_id == via and sender in cohort.cohort and to in cohort.cohort
            for cohort in machine.via_cohorts()
        )

    # --- inside ------------------------------------------------------------------------------------------------

    def _member(self, peer: str) -> Member:
        session = self._sessions.get(peer)
        registration = session.registration if session is not None else None
        if registration is None:
            return Member(peer=peer)
        return Member(
            peer=peer,
            sealing_key=registration.sealing_key,
            sealing_signature=registration.sealing_signature,
        )

    def _busy(self, peer: str, run: str) -> bool:
        session = self._sessions.get(peer)
        if session is None or session.registration is None:
            return True
        at_work = sum(1 for m in self._working.values() if m.run != run and m.attempt_of(peer) is not None)
        return at_work >= session.registration.max_runs

    def _after(self, machine: RunMachine, out: Outbox, now: float) -> None:
        """Keep the index of round ids, let runs start that waited for peers of this one, and forget old ends."""
        self.reindex(machine)
        if not isinstance(machine.phase, Working):
            for other in self._waiting_beside(machine):
                other.advance(out, now)
                self.reindex(other)
        if machine.ended:
            ended = [run for run, item in self.runs.items() if item.ended]
            for run in ended[: max(0, len(ended) - self._limits.ended_runs_in_memory)]:
                self._drop(run)

    def _waiting_beside(self, machine: RunMachine) -> Iterable[RunMachine]:
        return [
            other
            for other in self.runs.values()
            if other is not machine
            and other.state == "waiting"
            and not machine.participants.accepted.keys().isdisjoint(other.participants.accepted)
        ]

    def reindex(self, machine: RunMachine) -> None:
        """Note which round ids of a run may be relayed under, and whether it is at work."""
        if isinstance(machine.phase, Working):
            self._working[machine.run] = machine
        else:
            self._working.pop(machine.run, None)
        current: set[str] = {attempt.round_id for attempt in machine.via_cohorts()}
        known = self._ids.get(machine.run, set())
        for gone in known - current:
            self._run_of.pop(gone, None)
        for new in current - known:
            self._run_of[new] = machine.run
        self._ids[machine.run] = current

    def _drop(self, run: str) -> None:
        for via in self._ids.pop(run, set()):
            self._run_of.pop(via, None)
        del self.runs[run]
