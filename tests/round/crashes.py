"""Peers that die between any two of their actions, and come back with what is on their disk.

A `Crash` names one boundary: the peer dies before it does its action number `before`. What it sent by then arrives or
is lost, and the others' links to it end at once or when a silent link ends. A process that comes back has another
DTLS certificate, the journal, and nothing else: it joins the attempt only if its journal does not say that it did.
"""

# ruff: noqa: FBT001 -- a message on the wire is (sender, receiver, bytes, bulk)

from __future__ import annotations

from dataclasses import dataclass

from protocol.round.actions import Action, Persist
from protocol.round.machine import RoundMachine, randomness_bytes
from tests.round.network import Member, Network, stream
from tests.round.observer import Observer

SILENCE_ENDS_A_LINK_S = 7.0
"""As in `python_node/mesh` (ADR 0022)."""

_LENGTH = 14
"""Coordinates; with the tail two chunks, so that some peers own none."""

_ADVERT, _SHARE, _COMMIT, _VOTE, _RESULT, _CHUNK, _SUM = 1, 3, 5, 7, 10, 32, 33
_SAID_ONCE = frozenset({_ADVERT, _COMMIT, _VOTE, _RESULT})
"""Types of which a peer sends the same bytes to everybody, whenever it sends them; of SHARE to each receiver, of
CHUNK and SUM of each chunk."""


@dataclass(frozen=True)
class Crash:
    """Where a peer dies and what becomes of it."""

    peer: int
    before: int
    arrives: bool = True
    noticed: bool = True


class CrashNetwork(Network):
    """A network whose members die where `crashes` say. `actions_of` counts what each first process did."""

    def __init__(self, n: int, *crashes: Crash, replicas: int = 1, forgetful: bool = False) -> None:
        """`forgetful` peers do not look into their journal when they come back."""
        self.n, self.forgetful = n, forgetful
        self.crashes = {crash.peer: crash for crash in crashes}
        assert len(self.crashes) == len(crashes)
        self.actions_of = [0] * n
        self.kinds: list[list[str]] = [[] for _ in range(n)]
        self.journals: list[list[Persist]] = [[] for _ in range(n)]
        self.crashed: set[int] = set()
        self.unnoticed: dict[int, float] = {}
        self.fallen: list[int] = []
        self.said: dict[tuple[int, ...], bytes] = {}
        self.stayed_out: set[int] = set()
        super().__init__(n, length=_LENGTH, seed=f"crashes {n}", replicas=replicas)
        self.observer = Observer(self)

    def play(self) -> None:
        """From start to end, everything checked after every event."""
        self.start()
        for _ in range(100_000):
            if self.fallen:
                self._notice(self.fallen.pop())
            elif self.wire:
                self.deliver()
            elif not self.step_time():
                break
        else:
            raise AssertionError("the round does not end")
        self._check_end()

    def send(self, sender: int, to: int, data: bytes, bulk: bool) -> None:
        self._check_repeated(sender, to, data)
        super().send(sender, to, data, bulk)

    def kill(self, index: int) -> None:
        """Nothing more of that process; links end when `_notice` says so."""
        crash = self.crashes[index]
        self.crashed.add(index)
        self.members[index].dead = True
        if not crash.arrives:
            self.wire = [item for item in self.wire if item[0] != index]
        if crash.noticed:
            self.fallen.append(index)
        else:
            self.unnoticed[index] = self.now + SILENCE_ENDS_A_LINK_S

    def next_due(self) -> float:
        return min([super().next_due(), *self.unnoticed.values()])

    def step_time(self) -> bool:
        if not any(m.machine.next_deadline() is not None for m in self.alive()):
            return False
        if not super().step_time():
            return False
        for index in [index for index, due in self.unnoticed.items() if due <= self.now]:
            del self.unnoticed[index]
            self.fallen.append(index)
        return True

    def _act(self, index: int, member: Member, action: Action) -> None:
        if member.dead:
            return
        crash = self.crashes.get(index)
        if index not in self.crashed:
            if crash is not None and self.actions_of[index] == crash.before:
                self.kill(index)
                return
            self.actions_of[index] += 1
            self.kinds[index].append(type(action).__name__)
        if isinstance(action, Persist):
            self.journals[index].append(action)
        super()._act(index, member, action)

    def _notice(self, index: int) -> None:
        for other, member in enumerate(self.members):
            if other != index and not member.dead:
                member.machine.link_down(index, self.now)
                self._do(other)
        self._restart(index)

    def _restart(self, index: int) -> None:
        """A new process with the old journal."""
        others = [i for i, m in enumerate(self.members) if i != index and not m.dead]
        fingerprint = bytes([index, 0xEE]) * 16
        if not self.forgetful and any(entry.entry == "joined" for entry in self.journals[index]):
            self.stayed_out.add(index)  # but it links again, for later rounds
            for other in others:
                self.members[other].machine.link_up(index, fingerprint, self.now)
                self._do(other)
            return
        old = self.members[index]
        randomness = stream(f"second life of {index}", randomness_bytes(self.parameters))
        machine = RoundMachine(
            parameters=self.parameters,
            identity=self.identities[index],
            fingerprint=fingerprint,
            deadlines=self.deadlines,
            randomness=randomness,
        )
        self.members[index] = Member(machine, old.update, randomness, persisted=list(self.journals[index]))
        for other in others:
            machine.link_up(other, bytes([other]) * 32, self.now)
            self.members[other].machine.link_up(index, fingerprint, self.now)
            self._do(other)
        machine.start(self.now)
        self._do(index)
        self.give_update(index)

    def _check_repeated(self, sender: int, to: int, data: bytes) -> None:
        kind = data[1]
        if kind in _SAID_ONCE:
            key = (sender, kind)
        elif kind == _SHARE:
            key = (sender, kind, to)
        elif kind in (_CHUNK, _SUM):
            author = int.from_bytes(data[2:4], "little")  # a SUM may be passed on
            key = (author, kind, int.from_bytes(data[12:14], "little"))
        else:
            return
        known = self.said.setdefault(key, bytes(data))
        assert known == data, f"peer {sender} sent two different messages of type {kind}: {key}"

    def _check_end(self) -> None:
        assert self.observer is not None
        self.observer.end()
        for journal in self.journals:
            entries = [entry.entry for entry in journal]
            assert entries[:1] in ([], ["joined"])
            assert all(entries.count(once) <= 1 for once in ("joined", "committed", "voted"))
        ends = {(m.completed.model_digest, m.completed.survivors) for m in self.alive() if m.completed is not None}
        assert len(ends) <= 1, f"peers that completed hold different results: {ends}"
