"""Liars that hold messages back: from some receivers for good, or from all until just before somebody gives up.

Everything they do send is what an honest peer would send, so nobody can accuse them; they answer the links' pings.
"""

# ruff: noqa: FBT001 -- a message on the wire is (sender, receiver, bytes, bulk)

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from protocol.terms import Deadlines
from tests.round.network import Network
from tests.round.observer import Observer

DECIDE = 2
SUM = (33, 0)
TYPES = (1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 32, 33)
"""Of messages without DECIDE, whose kinds count each by itself."""

KEYS: tuple[tuple[int, int], ...] = (*((number, 0) for number in TYPES), *((DECIDE, kind) for kind in (1, 2, 3, 4)))


@dataclass(frozen=True)
class Hold:
    """What happens to messages of one type of one liar: `never_to` do not get them, the others after `delay_s`."""

    never_to: frozenset[int] = frozenset()
    delay_s: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What each liar does with which type of message."""

    n: int
    holds: Mapping[tuple[int, tuple[int, int]], Hold] = field(default_factory=dict)
    replicas: int = 1

    @property
    def liars(self) -> frozenset[int]:
        """Who holds something back."""
        return frozenset(liar for liar, _ in self.holds)


class DelayedNetwork(Network):
    """Honest peers are perfect and have their updates at once; `ended_at` says when the last of them ended."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.n, length=14, seed=f"delays {plan.n}", replicas=plan.replicas, deadlines=Deadlines())
        self.plan = plan
        self.observer = Observer(self, liars=plan.liars)
        self.held: list[tuple[float, int, int, bytes, bool]] = []
        self.ended_at = 0.0

    def play(self) -> None:
        """From start to the end of every honest peer."""
        self.start()
        for _ in range(100_000):
            if self.wire:
                self.deliver()
            elif self.is_over() or not self.step_time():
                break
        else:
            raise AssertionError("the round does not end")
        self.ended_at = self.now
        assert self.observer is not None
        self.observer.end()

    def is_over(self) -> bool:
        """Whether every honest peer has an end."""
        return all(m.completed is not None or m.failed is not None for m in self.honest())

    def honest(self) -> list:
        return [member for index, member in enumerate(self.members) if index not in self.plan.liars]

    def send(self, sender: int, to: int, data: bytes, bulk: bool) -> None:
        key = (data[1], data[12] if data[1] == DECIDE else 0)
        hold = self.plan.holds.get((sender, key))
        if hold is None or (to not in hold.never_to and not hold.delay_s):
            super().send(sender, to, data, bulk)
        elif to not in hold.never_to:
            self.held.append((self.now + hold.delay_s, sender, to, data, bulk))

    def next_due(self) -> float:
        return min([super().next_due(), *(due for due, *_ in self.held)])

    def step_time(self) -> bool:
        if not super().step_time():
            return False
        due = [item for item in self.held if item[0] <= self.now]
        self.held = [item for item in self.held if item[0] > self.now]
        self.wire += [(sender, to, data, bulk) for _, sender, to, data, bulk in due]
        return True


def leader_of(n: int, view: int = 0) -> int:
    """Who leads a view in these networks."""
    return DelayedNetwork(Plan(n)).members[0].machine._views.leader_of(view)


def random_plan(n: int, liars: frozenset[int], rng: random.Random) -> Plan:
    """Each liar holds back a few types of message, from some of the others or until just before a deadline."""
    holds: dict[tuple[int, tuple[int, int]], Hold] = {}
    for liar in sorted(liars):
        for key in rng.sample(KEYS, rng.choice([1, 1, 2, 3, 5, 8, len(KEYS)])):
            receivers = frozenset(
                i for i in range(n) if i != liar and rng.random() < rng.choice([0.0, 0.3, 0.7, 1.0])
            )
            holds[liar, key] = Hold(receivers, rng.choice([0.0, 0.0, 4.9, 9.9, 14.9, 69.9, 74.9, 79.9]))
    return Plan(n, holds)
