"""R4 (spec 07 §8): what this peer reveals under the certificate, and what others reveal to it."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from protocol.round.advertising import Advertising
from protocol.round.errors import MessageError, RoundFailedError
from protocol.round.messages import Certificate, Kind, Received, Reveal
from protocol.round.seeds import SeedBook
from protocol.round.sharing import Sharing
from protocol.round.state import RoundState
from protocol.secagg.parameters import indexes_of

__all__ = ["Unmasking"]


class Unmasking:
    """Reveals that wait for the certificate, and from then on the book of seeds. `repr` shows no secret."""

    def __init__(self, state: RoundState, advertising: Advertising, sharing: Sharing) -> None:
        self._state = state
        self._advertising = advertising
        self._sharing = sharing
        self._early: dict[int, dict[tuple[int, int], bytes]] = {}
        self._early_seeds: dict[int, bytes] = {}
        self.book: SeedBook | None = None

    def __repr__(self) -> str:
        return f"Unmasking({self.book!r})"

    @property
    def revealers(self) -> frozenset[int]:
        """Peers that revealed something, so they hold a certificate."""
        return frozenset(self._early) | frozenset(self._early_seeds)

    def keep(self, received: Received) -> None:
        """Use a reveal, or keep it until there is a certificate: one seed, and one share per peer and kind.

        Raises:
            MessageError: it tells something that the certificate does not open.
        """
        reveal, sender = received.message, received.sender
        assert isinstance(reveal, Reveal)
        if self.book is not None:
            self._take(sender, reveal.seed, reveal.shares)
            return
        if reveal.seed is not None:
            self._early_seeds.setdefault(sender, reveal.seed)
        kept = self._early.setdefault(sender, {})
        for about, kind, share in reveal.shares:
            kept.setdefault((about, kind), share)

    def begin(self, certificate: Certificate) -> None:
        """Adopt the certificate: from here on it alone says which secret of whom this peer may tell."""
        state = self._state
        state.adopt_survivors(indexes_of(certificate.survivors), certificate.survivors, certificate.root)
        dropouts = state.mask_set - state.survivors
        self.book = SeedBook(
            threshold=state.parameters.threshold,
            survivors=state.survivors,
            dropouts=dropouts,
            adverts={i: self._advertising.advert(i) for i in state.mask_set},
            own_shares=self._sharing.held,
            own_index=state.own_index,
        )
        seed = state.secrets.self_mask_seed if state.own_index in state.survivors else None
        if seed is not None:
            self.book.add_seed(state.own_index, seed)
        gone = state.survivors - state.live(state.survivors)
        self._reveal(dropouts | gone, seed=seed)
        self._take_early()

    def step(self) -> bool:
        """Reveal shares about survivors that are gone or silent; whether every secret is known.

        Raises:
            RoundFailedError: secrets are missing and the time for them is over.
        """
        assert self.book is not None
        missing = self.book.missing
        self._reveal(missing if self._state.overdue() else missing & self._state.post.gone)
        if missing and self._state.overdue(graces=1):
            raise RoundFailedError(f"the secrets of peers {sorted(missing)} could not be recovered")
        return not missing

    def _take(self, sender: int, seed: bytes | None, shares: Iterable[tuple[int, int, bytes]]) -> None:
        assert self.book is not None
        if sender not in self._state.roster:
            raise MessageError(f"peer {sender} revealed shares but is not in the roster")
        if seed is not None:
            self.book.add_seed(sender, seed)
        asked = set()
        for about, kind, share in shares:
            self.book.add_share(sender, about, kind, share)
            asked.add(about)
        # somebody misses the secrets of these peers: with t such answers it recovers them
        self._reveal(asked)
        self._state.changes += 1

    def _take_early(self) -> None:
        for sender in sorted(self.revealers):
            shares = [(about, kind, share) for (about, kind), share in self._early.get(sender, {}).items()]
            try:
                self._take(sender, self._early_seeds.get(sender), shares)
            except MessageError as error:
                self._state.post.report(sender, str(error))
        self._early.clear()
        self._early_seeds.clear()

    def _reveal(self, about: AbstractSet[int], *, seed: bytes | None = None) -> None:
        if not about and seed is None:
            return
        assert self.book is not None
        shares = self.book.reveal(about)
        if not shares and seed is None:
            return
        told = [f"{peer}:{kind}" for peer, kind, _ in shares]
        if seed is not None:
            told.append(f"{self._state.own_index}:{Kind.SEED}")
        self._state.post.persist("revealed", ",".join(told))
        self._state.post.broadcast(Reveal(seed, shares), to_self=False)
