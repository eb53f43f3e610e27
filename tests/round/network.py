"""An in-memory network of real round machines: it can delay, reorder, duplicate, drop and cut.

Time is a manual clock. `run` delivers what is under way, in an order drawn by `choose`, until nobody has
anything to do; then it moves the clock to the next deadline.
"""

# ruff: noqa: FBT001 -- a message on the wire is (sender, receiver, bytes, bulk)

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from protocol.errors import RoundError
from protocol.identity import Identity
from protocol.round.actions import Action, Completed, Failed, Misbehaviour, Persist, Revealed, Send, Work
from protocol.round.jobs import LocalUpdate, tail_bytes
from protocol.round.machine import RoundMachine, Stage, randomness_bytes
from protocol.secagg.apply import Aggregate, apply_aggregate, model_digest
from protocol.secagg.parameters import RoundParameters
from protocol.terms import Deadlines
from tests.round.observer import Observer

TAIL = 2  # weight and one metric


def stream(label: str, size: int) -> bytes:
    """Reproducible bytes."""
    return hashlib.shake_256(label.encode()).digest(size)


def just_after(time_s: float) -> float:
    """The next whole multiple of 2^-20 s, about a microsecond; sums of such times are exact."""
    return math.floor(time_s * 2**20 + 1) / 2**20


@dataclass
class Member:
    """One peer: its machine and what came out of it."""

    machine: RoundMachine
    update: np.ndarray
    randomness: bytes = b""
    persisted: list[Persist] = field(default_factory=list)
    faults: list[Misbehaviour] = field(default_factory=list)
    aggregate: Aggregate | None = None
    model: np.ndarray | None = None
    completed: Completed | None = None
    failed: Failed | None = None
    dead: bool = False


class Network:
    """n machines with full-mesh links."""

    def __init__(
        self,
        n: int,
        *,
        length: int = 40,
        seed: str = "network",
        min_survivors: int = 3,
        ring_bits: int = 20,
        replicas: int = 1,
        deadlines: Deadlines | None = None,
    ) -> None:
        identities = sorted(
            (Identity(stream(f"{seed} identity {i}", 32)) for i in range(n)), key=lambda identity: identity.peer_id
        )
        self.model = np.frombuffer(stream(seed + " model", 2 * length), "<i2").astype(np.float32) / 32768
        self.parameters = RoundParameters(
            run_id=hashlib.sha256(seed.encode()).hexdigest(),
            round_id=hashlib.sha256(b"round" + seed.encode()).hexdigest(),
            plan_digest="11" * 32,
            model_digest=model_digest(self.model),
            cohort=tuple(identity.peer_id for identity in identities),
            min_survivors=min_survivors,
            ring_bits=ring_bits,
            value_bits=16 if ring_bits > 16 else 11,
            replicas=replicas,
            vector_length=length + TAIL,
            clip=1.0,
        )
        self.now = 0.0
        self.wire: list[tuple[int, int, bytes, bool]] = []
        self.sent: list[tuple[int, int, bytes, bool]] = []
        self.tamper: Callable[[int, int, bytes, bool], list[bytes]] | None = None
        self.on_event: Callable[[Network], None] | None = None
        self.deadlines = deadlines or Deadlines()
        self.identities = identities
        self.observer: Observer | None = None
        self.members = []
        for index, identity in enumerate(identities):
            randomness = stream(f"{seed} randomness {index}", randomness_bytes(self.parameters))
            machine = RoundMachine(
                parameters=self.parameters,
                identity=identity,
                fingerprint=bytes([index]) * 32,
                deadlines=self.deadlines,
                randomness=randomness,
            )
            update = np.frombuffer(stream(f"{seed} update {index}", 2 * length), "<i2").astype(np.float32) / 65536
            self.members.append(Member(machine, update, randomness))

    def start(self, *, without_update: frozenset[int] = frozenset()) -> None:
        """Link everybody, start, and hand in the updates."""
        for index, member in enumerate(self.members):
            for other in range(len(self.members)):
                if other != index:
                    member.machine.link_up(other, bytes([other]) * 32, self.now)
        for index, member in enumerate(self.members):
            member.machine.start(self.now)
            self._do(index)
            if index not in without_update:
                self.give_update(index)

    def give_update(self, index: int) -> None:
        member = self.members[index]
        member.machine.provide_update(LocalUpdate(member.update, 1.0, (0.5,)), self.now)
        self._do(index)

    def kill(self, index: int) -> None:
        """The process is gone: nothing more from it, and the others' links to it break."""
        self.members[index].dead = True
        self.wire = [item for item in self.wire if item[0] != index]
        for other, member in enumerate(self.members):
            if other != index and not member.dead:
                member.machine.link_down(index, self.now)
                self._do(other)

    def deliver(self, position: int = 0) -> None:
        """Deliver one message that is under way."""
        sender, to, data, bulk = self.wire.pop(position)
        member = self.members[to]
        if member.dead:
            return
        for item in self.tamper(sender, to, data, bulk) if self.tamper else [data]:
            member.machine.receive(sender, item, bulk=bulk, now=self.now)
            self._do(to)

    def next_due(self) -> float:
        """The next deadline of anybody."""
        due = [t for m in self.members if not m.dead and (t := m.machine.next_deadline()) is not None]
        return min(due, default=float("inf"))

    def step_time(self) -> bool:
        """Move to the next deadline; False where nobody has one."""
        due = self.next_due()
        if due == float("inf"):
            return False
        self.now = just_after(max(self.now, due))
        for index, member in enumerate(self.members):
            if not member.dead:
                member.machine.tick(self.now)
                self._do(index)
        return True

    def run(self, choose: Callable[[int], int] = lambda _: 0, *, max_events: int = 100_000) -> None:
        """Deliver until everybody has ended."""
        for _ in range(max_events):
            if self.wire:
                self.deliver(choose(len(self.wire)))
            elif not self.step_time():
                return
        raise AssertionError("the round neither ends nor fails")

    def run_until(self, condition: Callable[[], bool], choose: Callable[[int], int] = lambda _: 0) -> None:
        """Deliver until a condition holds."""
        for _ in range(100_000):
            if condition():
                return
            if self.wire:
                self.deliver(choose(len(self.wire)))
            elif not self.step_time():
                break
        assert condition(), "everybody ended before the condition held"

    def plain_sum(self, survivors: frozenset[int]) -> np.ndarray:
        return np.sum([self.members[i].update for i in survivors], axis=0, dtype=np.float64)

    def alive(self) -> list[Member]:
        return [member for member in self.members if not member.dead]

    def send(self, sender: int, to: int, data: bytes, bulk: bool) -> None:
        """Put bytes on the wire."""
        self.wire.append((sender, to, data, bulk))
        self.sent.append((sender, to, data, bulk))

    def work(self, index: int, action: Work) -> None:
        """Do a job at once."""
        self.finish(index, action)

    def finish(self, index: int, action: Work) -> None:
        try:
            outcome = action.job()
        except RoundError as error:
            outcome = error
        self.members[index].machine.finish_work(action.number, outcome, self.now)

    def _do(self, index: int) -> None:
        member = self.members[index]
        while actions := member.machine.actions():
            for action in actions:
                self._act(index, member, action)
        if self.observer is not None:
            self.observer.after_event()
        if self.on_event is not None:
            self.on_event(self)

    def _act(self, index: int, member: Member, action: Action) -> None:
        match action:
            case Send(to=to, data=data, bulk=bulk):
                if self.observer is not None:
                    self.observer.sent(index, data)
                self.send(index, to, data, bulk)
            case Work():
                self.work(index, action)
            case Revealed(aggregate=aggregate):
                if self.observer is not None:
                    self.observer.revealed_sum(index, aggregate)
                self._apply(member, aggregate)
            case Persist():
                member.persisted.append(action)
                if self.observer is not None:
                    self.observer.persisted(index, action)
            case Misbehaviour():
                member.faults.append(action)
            case Completed():
                assert member.completed is None
                assert member.failed is None
                member.completed = action
            case Failed():
                assert member.completed is None
                assert member.failed is None
                member.failed = action

    def _apply(self, member: Member, aggregate: Aggregate) -> None:
        member.aggregate = aggregate
        clip, largest = self.parameters.clip, self.parameters.largest_value
        try:
            member.model = apply_aggregate(self.model, aggregate, clip=clip, largest_value=largest)
        except RoundError as error:
            member.machine.fail(str(error), self.now)
            return
        tail = tail_bytes(aggregate.tail(len(self.model)))
        member.machine.provide_result(model_digest(member.model), tail, self.now)


def ended(member: Member) -> bool:
    return member.machine.stage in (Stage.DONE, Stage.FAILED)
