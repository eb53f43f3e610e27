"""Who takes part in a run: consents, who holds which round's model, and patience with those that still fetch it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from signaling.run_phases import Peers

__all__ = ["Participants"]

JOIN_TRIES = 2
"""Rounds that wait for one late joiner after each consent: without a bound it could stall a run."""


@dataclass
class Participants:
    """Peers that consented to one run. `round` arguments count logged rounds: which model is the current one."""

    run: str
    peers: Peers
    accepted: dict[str, str | None] = field(default_factory=dict)
    """Peers that consented, in that order, with the dataset they named."""
    _held: dict[str, int] = field(default_factory=dict)
    """How many logged rounds the model has that a peer holds."""
    _patience: dict[str, int] = field(default_factory=dict)
    """Of late joiners: how many more rounds wait for them."""

    def consents(self, peer: str, dataset: str | None, *, waits: bool) -> None:
        """The owner of a node consents; where the run `waits` for models at all, also for this one's."""
        if waits:
            self._patience.setdefault(peer, JOIN_TRIES)
        self.accepted[peer] = dataset

    def forget(self, peer: str) -> None:
        """Consent is taken back, or the session ended."""
        for kept in (self.accepted, self._held, self._patience):
            kept.pop(peer, None)

    def holds(self, peer: str, round_number: int) -> None:
        """A peer has a model; from who did not consent this means nothing."""
        if peer in self.accepted:
            self._held[peer] = round_number
            self._patience.pop(peer, None)

    def fetches(self, peer: str, round_number: int) -> None:
        """A peer began to fetch the current model: the next cohort waits for it a little."""
        if peer in self.accepted and self._held.get(peer) != round_number:
            self._patience.setdefault(peer, JOIN_TRIES)

    def left_out(self, cohort: Collection[str], round_number: int) -> None:
        """Who held this model and was not in the cohort that gave the next one misses that: without patience, fast
        rounds starve them.
        """
        for peer, at in self._held.items():
            if at == round_number and peer not in cohort:
                self._patience.setdefault(peer, JOIN_TRIES)

    def online(self) -> int:
        """How many are connected."""
        return sum(1 for peer in self.accepted if self.peers.online(peer))

    def ready(self, round_number: int) -> list[str]:
        """Peers that could be named now, in the order of their consents."""
        return [
            peer
            for peer in self.accepted
            if self._held.get(peer) == round_number
            and self.peers.online(peer)
            and not self.peers.busy(peer, self.run)
        ]

    def holders(self, round_number: int) -> tuple[str, ...]:
        """Online peers that hold the current model."""
        return tuple(peer for peer, at in self._held.items() if at == round_number and self.peers.online(peer))

    def awaited(self) -> list[str]:
        """Late joiners that have not used up the patience they are given."""
        return [peer for peer, tries in self._patience.items() if tries > 0 and self.peers.online(peer)]

    def lose_patience(self) -> None:
        """A cohort is named without those it was waited for."""
        for peer in self.awaited():
            self._patience[peer] -= 1
