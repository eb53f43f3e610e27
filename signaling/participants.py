"""Who takes part in a run: consents, who holds which round's model, and patience with those that still fetch it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from signaling.run_phases import Peers

__all__ = ["Participants"]

JOIN_TRIES = 2
"""Rounds that wait for one late joiner after each consent: without a bound it could stall a run."""


@dataclass
class Participants:
    """Peers that consented to one run. `round_number` counts logged rounds: which model is the current one.

    Thousands say one after another that they are ready, so what is asked after each of them looks at few of them.
    """

    run: str
    peers: Peers
    accepted: dict[str, str | None] = field(default_factory=dict)
    """Peers that consented, in that order, with the dataset they named."""
    _held: dict[str, int] = field(default_factory=dict)
    """How many logged rounds the model has that a peer holds."""
    _holding: dict[int, dict[str, None]] = field(default_factory=dict)
    """The same by round."""
    _patience: dict[str, int] = field(default_factory=dict)
    """Of late joiners: how many more rounds wait for them."""

    def consents(self, peer: str, dataset: str | None, *, waits: bool) -> None:
        """The owner of a node consents; where the run `waits` for models at all, also for this one's."""
        if waits:
            self._patience.setdefault(peer, JOIN_TRIES)
        self.accepted[peer] = dataset

    def forget(self, peer: str) -> None:
        """Consent is taken back, or the session ended."""
        self.accepted.pop(peer, None)
        self._patience.pop(peer, None)
        self._let_go(peer)

    def holds(self, peer: str, round_number: int) -> None:
        """A peer has a model; from who did not consent this means nothing."""
        if peer in self.accepted:
            self._let_go(peer)
            self._held[peer] = round_number
            self._holding.setdefault(round_number, {})[peer] = None
            self._patience.pop(peer, None)

    def fetches(self, peer: str, round_number: int) -> None:
        """A peer began to fetch the current model: the next cohort waits for it a little."""
        if peer in self.accepted and self._held.get(peer) != round_number:
            self._patience.setdefault(peer, JOIN_TRIES)

    def left_out(self, cohort: Collection[str], round_number: int) -> None:
        """Who held this model and was not in the cohort that gave the next one misses that: without patience, fast
        rounds starve them.
        """
        for peer in self._holding.get(round_number, ()):
            if peer not in cohort:
                self._patience.setdefault(peer, JOIN_TRIES)

    def ready(self, round_number: int) -> list[str]:
        """Peers that could be named now, in the order of their consents."""
        holding = self._holding.get(round_number, {})
        return [peer for peer in self.accepted if peer in holding and self._free(peer)]

    def enough(self, count: int, round_number: int) -> bool:
        """Whether so many peers could be named now."""
        holding = self._holding.get(round_number, {})
        if len(holding) < count:
            return False
        return sum(1 for _ in itertools.islice(filter(self._free, holding), count)) == count

    def holders(self, round_number: int) -> tuple[str, ...]:
        """Online peers that hold the current model."""
        return tuple(filter(self.peers.online, self._holding.get(round_number, ())))

    def awaited(self) -> Iterator[str]:
        """Late joiners that have not used up the patience they are given."""
        return (peer for peer, tries in self._patience.items() if tries > 0 and self.peers.online(peer))

    def lose_patience(self) -> None:
        """A cohort is named without those it was waited for."""
        for peer in list(self.awaited()):
            self._patience[peer] -= 1

    def _free(self, peer: str) -> bool:
        return self.peers.online(peer) and not self.peers.busy(peer, self.run)

    def _let_go(self, peer: str) -> None:
        before = self._held.pop(peer, None)
        if before is not None:
            holding = self._holding[before]
            del holding[peer]
            if not holding:
                del self._holding[before]
