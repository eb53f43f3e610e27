"""One random schedule: who lies, who dies, which links break, in which order everything arrives."""

# ruff: noqa: FBT001 -- a message on the wire is (sender, receiver, bytes, bulk)

from __future__ import annotations

import random
from dataclasses import dataclass

from protocol.round.actions import Work
from protocol.round.machine import Stage
from protocol.terms import Deadlines
from tests.round import liars
from tests.round.network import Network, stream
from tests.round.observer import Observer

_BASE_SEEDS = 8  # identities and updates are drawn from few seeds: key generation would cost most of the time


@dataclass(frozen=True)
class Plan:
    """What may happen in a schedule; rates are per event, `chatter` that of what liars send beside their part."""

    seed: int
    n: int
    replicas: int = 1
    lies: tuple[tuple[int, str], ...] = ()
    kills: int = 0
    cuts: int = 0
    partition: bool = False
    duplicates: float = 0.0
    corruption: float = 0.0
    in_order: bool = False
    chatter: float = 0.02


class Schedule(Network):
    """A network that follows a plan; work, updates, deaths, cuts and repairs are events among the messages."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(
            plan.n,
            length=24,
            seed=f"schedule {plan.seed % _BASE_SEEDS}",
            replicas=plan.replicas,
            deadlines=Deadlines(train_ms=20_000),
        )
        self.plan = plan
        self.random = random.Random(plan.seed)
        self.mute_from = self.random.choice(list(Stage)[:6])
        self.jobs: list[tuple[int, Work]] = []
        self.lies_told = 0
        self.broken: set[frozenset[int]] = set()
        lying = frozenset(index for index, _ in plan.lies)
        self.observer = Observer(self, liars=lying)
        self.observer.exact = not any(name in liars.CHANGES_SUM for _, name in plan.lies)
        self.rewrites: dict[int, list] = {i: [] for i in lying}
        self.spontaneous: list[tuple[int, object]] = []
        for index, name in plan.lies:
            if name in liars.REWRITES:
                self.rewrites[index].append(liars.REWRITES[name])
            else:
                self.spontaneous.append((index, liars.SPONTANEOUS[name]))
        self.chances: list = [self._kill] * plan.kills + [self._cut] * plan.cuts + [self._split] * plan.partition
        self.updates = list(range(plan.n))

    @staticmethod
    def stream(label: str, size: int) -> bytes:
        return stream(label, size)

    def send(self, sender: int, to: int, data: bytes, bulk: bool) -> None:
        out = [(data, bulk)]
        for lie in self.rewrites.get(sender, ()):
            out = [new for item in out for new in lie(self, sender, to, *item)]
        self.lies_told += out != [(data, bulk)]
        for raw, is_bulk in out:
            self._put(sender, to, raw, is_bulk)

    def work(self, index: int, action: Work) -> None:
        self.jobs.append((index, action))

    def play(self) -> None:
        """From start to end."""
        self.start(without_update=frozenset(range(self.plan.n)))
        for _ in range(60_000):
            if not self._event():
                break
        else:
            raise AssertionError("the schedule does not end")
        self.observer.end()

    def _put(self, sender: int, to: int, data: bytes, bulk: bool) -> None:
        if frozenset((sender, to)) not in self.broken:
            super().send(sender, to, data, bulk)

    def _event(self) -> bool:
        rng = self.random
        if self.chances and rng.random() < 0.01:
            self.chances.pop(rng.randrange(len(self.chances)))()
        if self.broken and rng.random() < 0.01:
            self._repair(rng.choice(sorted(self.broken, key=sorted)))
        if self.spontaneous and rng.random() < self.plan.chatter:
            liar, lie = rng.choice(self.spontaneous)
            to = rng.randrange(self.plan.n)
            if to != liar and not self.members[liar].dead:
                for data, bulk in lie(self, liar, to):
                    self.lies_told += 1
                    self._put(liar, to, data, bulk)
        if self.updates and rng.random() < 0.05:
            index = self.updates.pop(rng.randrange(len(self.updates)))
            if not self.members[index].dead:
                self.give_update(index)
            return True
        if self.jobs and (not self.wire or rng.random() < 0.2):
            index, action = self.jobs.pop(rng.randrange(len(self.jobs)))
            if not self.members[index].dead:
                self.finish(index, action)
                self._do(index)
            return True
        if self.wire:
            self._deliver()
            return True
        return bool(self.updates or self.jobs) or self.step_time()

    def _deliver(self) -> None:
        rng = self.random
        position = 0 if self.plan.in_order else rng.randrange(len(self.wire))
        sender, to, data, bulk = self.wire[position]
        if rng.random() < self.plan.duplicates:
            self.wire.append(self.wire[position])
        if rng.random() < self.plan.corruption and not self.members[to].dead:
            self.members[to].machine.receive(sender, liars._flip(bytes(data), self), bulk=bulk, now=self.now)
            self._do(to)
        self.deliver(position)

    def _kill(self) -> None:
        alive = [i for i, m in enumerate(self.members) if not m.dead]
        self.kill(self.random.choice(alive))

    def _cut(self) -> None:
        pair = frozenset(self.random.sample(range(self.plan.n), 2))
        self._break(pair)

    def _split(self) -> None:
        group = set(self.random.sample(range(self.plan.n), self.plan.n // 2))
        for a in group:
            for b in set(range(self.plan.n)) - group:
                self._break(frozenset((a, b)))

    def _break(self, pair: frozenset[int]) -> None:
        if pair in self.broken:
            return
        self.broken.add(pair)
        self.wire = [item for item in self.wire if frozenset(item[:2]) != pair]
        for index in pair:
            (other,) = pair - {index}
            if not self.members[index].dead:
                self.members[index].machine.link_down(other, self.now)
                self._do(index)

    def _repair(self, pair: frozenset[int]) -> None:
        if any(self.members[i].dead for i in pair):
            return
        self.broken.discard(pair)
        for index in sorted(pair):
            (other,) = pair - {index}
            self.members[index].machine.link_up(other, bytes([other]) * 32, self.now)
            self._do(index)


def random_plan(seed: int) -> Plan:
    """A plan drawn from a seed: half of them without liars, liars fewer than 2t - n."""
    rng = random.Random(f"plan {seed}")
    n = rng.choice([3, 4, 4, 5, 5, 6, 7])
    threshold = 2 * n // 3 + 1
    lying: list[tuple[int, str]] = []
    if rng.random() < 0.6:
        count = rng.randint(1, max(1, min(2, 2 * threshold - n - 1)))
        for index in rng.sample(range(n), count):
            lying += [(index, name) for name in rng.sample(liars.LIES, rng.choice([1, 1, 2, 3]))]
    return Plan(
        seed=seed,
        n=n,
        replicas=rng.choice([1, 1, 2]),
        lies=tuple(lying),
        kills=rng.choice([0, 0, 0, 1, 1, 2]),
        cuts=rng.choice([0, 0, 1, 3]),
        partition=rng.random() < 0.1,
        duplicates=rng.choice([0.0, 0.0, 0.1]),
        corruption=rng.choice([0.0, 0.0, 0.05]),
        in_order=rng.random() < 0.3,
    )
