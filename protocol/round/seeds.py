"""What is revealed about whom, and what comes back (spec 07 §8): never both secrets of one peer."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from protocol.round.errors import MessageError
from protocol.round.messages import Advert, Kind
from protocol.secagg.keys import public_key_of, seed_commitment
from protocol.secagg.shamir import expected_share, recover_secret

__all__ = ["SeedBook"]

_MAX_SUBSETS = 512
"""Subsets of shares tried when a share of one secret comes in, so that a few liars cost time, not the round."""

_MAX_ATTEMPTS = 8192
"""Subsets tried in the whole attempt: what liars can make a peer compute, about half a second."""


class SeedBook:
    """Collects self-mask seeds of survivors and mask keys of dropouts, and decides what this peer may reveal.

    The certificate fixes for each peer of the mask set which one of its two secrets may ever be known: the seed of a
    survivor, the mask key of a dropout. Nothing in this class can hand out the other one. `repr` shows no secret.
    """

    def __init__(
        self,
        *,
        threshold: int,
        survivors: frozenset[int],
        dropouts: frozenset[int],
        adverts: Mapping[int, Advert],
        own_shares: Mapping[int, tuple[bytes, bytes]],
        own_index: int,
    ) -> None:
        self._threshold = threshold
        self._kinds = dict.fromkeys(survivors, Kind.SEED) | dict.fromkeys(dropouts, Kind.MASK_KEY)
        self._adverts = adverts
        self._own_shares = own_shares
        self._own_index = own_index
        self._shares: dict[int, dict[int, bytes]] = {peer: {} for peer in self._kinds}
        self._secrets: dict[int, bytes] = {}
        self._missing = set(self._kinds)
        self._revealed: set[int] = set()
        self._contradicted: Counter[int] = Counter()
        self._attempts = 0
        for peer in self._kinds:
            share = self._own_share(peer)
            if share is not None:
                self._shares[peer][own_index] = share

    def __repr__(self) -> str:
        return f"SeedBook(known={sorted(self._secrets)}, missing={sorted(self.missing)})"

    @property
    def missing(self) -> AbstractSet[int]:
        """Peers whose secret is not known yet, as of now."""
        return self._missing

    def secret(self, peer: int) -> bytes:
        """The recovered seed or mask key of a peer."""
        return self._secrets[peer]

    def reveal(self, peers: Iterable[int]) -> tuple[tuple[int, int, bytes], ...]:
        """This peer's shares about others that may be revealed and were not before: (about, kind, share)."""
        out = []
        for peer in sorted(set(peers)):
            share = self._own_share(peer)
            if peer in self._kinds and peer not in self._revealed and share is not None:
                self._revealed.add(peer)
                out.append((peer, self._kinds[peer], share))
        return tuple(out)

    def add_seed(self, peer: int, seed: bytes) -> None:
        """A survivor's own seed.

        Raises:
            MessageError: the peer is no survivor, or the seed is not the advertised one.
        """
        if self._kinds.get(peer) != Kind.SEED:
            raise MessageError(f"peer {peer} revealed its seed but is not in the survivor set")
        if seed_commitment(seed) != self._adverts[peer].seed_commitment:
            raise MessageError(f"peer {peer} revealed another seed than it committed to")
        self._learn(peer, seed)

    def add_share(self, sender: int, about: int, kind: int, share: bytes) -> None:
        """A share from another peer; the secret is recovered once t shares fit its commitment.

        Raises:
            MessageError: the share is of a secret that this certificate does not open.
        """
        if self._kinds.get(about) != kind:
            raise MessageError(
                f"peer {sender} revealed a share about peer {about} that the certificate does not open"
            )
        if sender in self._shares[about]:
            return
        self._shares[about][sender] = share
        self._try_recover(about, newest=sender)

    def _learn(self, peer: int, secret: bytes) -> None:
        self._secrets[peer] = secret
        self._missing.discard(peer)

    def _try_recover(self, about: int, *, newest: int) -> None:
        """Recover a secret if enough shares are here; other subsets are tried where the first does not fit.

        Every subset holds the newest share: those without it were tried before. Peers whose shares contradicted a
        recovered secret come last.
        """
        shares = self._shares[about]
        if about in self._secrets or len(shares) < self._threshold:
            return
        rest = sorted(set(shares) - {newest}, key=lambda peer: (self._contradicted[peer], peer))
        for subset in itertools.islice(itertools.combinations(rest, self._threshold - 1), _MAX_SUBSETS):
            if self._attempts >= _MAX_ATTEMPTS:
                return
            self._attempts += 1
            chosen = {peer: shares[peer] for peer in (newest, *subset)}
            secret = recover_secret(chosen)
            if self._fits(about, secret):
                self._learn(about, secret)
                self._blame(shares, chosen)
                return

    def _blame(self, shares: Mapping[int, bytes], good: Mapping[int, bytes]) -> None:
        for peer in shares.keys() - good.keys():
            if shares[peer] != expected_share(good, peer):
                self._contradicted[peer] += 1

    def _fits(self, peer: int, secret: bytes) -> bool:
        advert = self._adverts[peer]
        if self._kinds[peer] == Kind.SEED:
            return seed_commitment(secret) == advert.seed_commitment
        return public_key_of(secret) == advert.mask_public

    def _own_share(self, peer: int) -> bytes | None:
        shares = self._own_shares.get(peer)
        if shares is None:
            return None
        return shares[0] if self._kinds.get(peer) == Kind.SEED else shares[1]
