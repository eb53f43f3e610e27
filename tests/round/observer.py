"""Sees every byte that honest peers send and every record they write, and checks what must hold after each event."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from protocol.round.messages import Kind, Reveal
from protocol.secagg.quantise import QUANTISE_KEY_BYTES, Quantised
from tests.secagg.ring import read_whole

_COMMIT, _VOTE, _REVEAL = 5, 7, 9


class Observer:
    """Invariants of p2psa/1; each check raises AssertionError with the schedule's own words.

    `liars` are peers that may send anything; what they hold counts as known to the attacker.
    """

    def __init__(self, network, *, liars: frozenset[int] = frozenset()) -> None:
        self.network = network
        self.liars = liars
        self.told: dict[tuple[int, int], set[int]] = defaultdict(set)
        self.own: set[int] = set()
        self.recorded: dict[int, set[tuple[int, int]]] = defaultdict(set)
        self.votes: dict[int, set[bytes]] = defaultdict(set)
        self.commits: dict[int, set[bytes]] = defaultdict(set)
        self.certified: set[tuple[bytes, frozenset[int]]] = set()
        self.exact = True  # False once a liar put its own numbers into the sum
        self.aggregates = 0

    def persisted(self, index: int, action) -> None:
        if action.entry == "revealed":
            for item in action.detail.split(","):
                peer, kind = item.split(":")
                self.recorded[index].add((int(peer), int(kind)))
                other = Kind.MASK_KEY if int(kind) == Kind.SEED else Kind.SEED
                assert (int(peer), other) not in self.recorded[index], f"peer {index} recorded both kinds of {peer}"

    def sent(self, index: int, data: bytes) -> None:
        """An honest peer sent bytes."""
        if index in self.liars:
            return
        kind = data[1]
        if kind == _VOTE:
            self.votes[index].add(bytes(data))
            assert len(self.votes[index]) == 1, f"peer {index} voted twice"
            assert any(p.entry == "voted" for p in self.network.members[index].persisted), "voted before recording it"
        elif kind == _COMMIT:
            self.commits[index].add(bytes(data))
            assert len(self.commits[index]) == 1, f"peer {index} committed twice"
            entries = [p.entry for p in self.network.members[index].persisted]
            assert "committed" in entries, "committed before recording it"
        elif kind == _REVEAL:
            self._revealed(index, data)

    def _revealed(self, index: int, data: bytes) -> None:
        machine = self.network.members[index].machine
        reveal = machine._state.post.codec.decode(data, bulk=False).message
        assert isinstance(reveal, Reveal)
        assert len(machine.survivors) >= machine.parameters.quorum, "revealed under too small a survivor set"
        if reveal.seed is not None:
            assert (index, Kind.SEED) in self.recorded[index], "revealed its seed before recording it"
            assert index in machine.survivors
            self.own.add(index)
        for about, kind, _ in reveal.shares:
            assert (about, kind) in self.recorded[index], "revealed a share before recording it"
            self.told[about, kind].add(index)
            self.check_seeds(about)

    def check_seeds(self, peer: int) -> None:
        """Never both secrets of an honest peer: the liars' own shares count as revealed."""
        if peer in self.liars:
            return
        threshold = self.network.parameters.threshold
        known = {kind: len(self.told[peer, kind] | self.liars) >= threshold for kind in (Kind.SEED, Kind.MASK_KEY)}
        seed_known = known[Kind.SEED] or peer in self.own
        assert not (seed_known and known[Kind.MASK_KEY]), f"both secrets of peer {peer} can be derived"

    def after_event(self) -> None:
        """Checks over all machines."""
        for index, member in enumerate(self.network.members):
            if index in self.liars:
                continue
            state = member.machine._state
            if state.survivors:
                self.certified.add((state.t3, state.survivors))
        assert len(self.certified) <= 1, f"two certificates: {self.certified}"

    def revealed_sum(self, index: int, aggregate) -> None:
        """A member has the aggregate: over U exactly, or zero for a lost chunk."""
        if index in self.liars:
            return
        assert len(aggregate.survivors) >= self.network.parameters.quorum
        if not self.exact:
            return
        expected = np.sum([self.quantised(i) for i in aggregate.survivors], axis=0)[: len(aggregate.sums)]
        for start, end in aggregate.lost:
            expected[start:end] = 0
        assert np.array_equal(expected, aggregate.sums), "the revealed sum is not the plain sum over U"
        self.aggregates += 1

    def quantised(self, index: int) -> np.ndarray:
        """What a peer puts in, recomputed from its update and randomness; signed."""
        member, parameters = self.network.members[index], self.network.parameters
        elements = Quantised(
            member.update,
            (0.5,),
            weight_fraction=1.0,
            clip=parameters.clip,
            largest_value=parameters.largest_value,
            rounding_key=member.randomness[-QUANTISE_KEY_BYTES:],
        )
        return read_whole(elements, parameters.padded_length).view(np.int32)

    def end(self) -> None:
        """The round is over for everybody who is alive and honest."""
        honest = [m for i, m in enumerate(self.network.members) if i not in self.liars and not m.dead]
        deadlines = self.network.deadlines
        limit = sum(getattr(deadlines, name) for name in deadlines.__struct_fields__) / 1000
        for member in honest:
            assert member.completed is not None or member.failed is not None, "a peer neither completed nor failed"
        assert self.network.now <= limit + 0.01, f"the round took {self.network.now} s, deadlines sum up to {limit} s"
        models = {m.model.tobytes() for m in honest if m.completed is not None}
        assert len(models) <= 1, "completed peers hold different models"
