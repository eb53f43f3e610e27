"""R0 (spec 07 §4): adverts, what is refused about them, and the roster they hash to."""

from __future__ import annotations

import hashlib
import struct

from protocol.round.errors import MessageError, RoundFailedError
from protocol.round.messages import Advert, Decide, Kind, Received
from protocol.round.requests import Requests
from protocol.round.state import RoundState
from protocol.round.views import Views
from protocol.secagg.keys import seed_commitment
from protocol.secagg.parameters import bits_of, indexes_of

__all__ = ["Advertising"]


class Advertising:
    """Keeps one advert per peer, with the secrets that this peer shares with it."""

    def __init__(self, state: RoundState, views: Views, requests: Requests) -> None:
        self._state = state
        self._views = views
        self._requests = requests
        self._adverts: dict[int, Received] = {}
        self._shared: dict[int, tuple[bytes, bytes]] = {}
        self._false_links: dict[int, str] = {}

    def begin(self) -> None:
        """Send this peer's advert."""
        secrets = self._state.secrets
        self._state.post.broadcast(
            Advert(
                t0=self._state.parameters.t0,
                mask_public=secrets.mask_public,
                enc_public=secrets.enc_public,
                seed_commitment=seed_commitment(secrets.self_mask_seed),
                fingerprint=self._state.fingerprint,
            )
        )

    def keep(self, received: Received, *, via: int) -> None:
        """Keep an advert.

        A second one by the same peer is refused, except as the answer to a question about a roster that does not
        hash to what its leader decided: who advertises twice cannot split the cohort by it.

        Raises:
            MessageError: it is for another round, contradicts its link or an earlier one, or holds unfit keys.
        """
        advert, sender = received.message, received.sender
        assert isinstance(advert, Advert)
        if advert.t0 != self._state.parameters.t0:
            raise MessageError(f"peer {sender} advertised for another round, plan, model or terms")
        known = self._adverts.get(sender)
        if known is not None:
            if known.message == advert:
                return
            answered = via != sender and not self._state.t1 and self._requests.asked(via, Kind.ADVERTS)
            if sender == self._state.own_index or not answered:
                raise MessageError(f"peer {sender} advertised twice with different keys")
        if sender != self._state.own_index:
            if via == sender:
                self._check_fingerprint(sender, advert)
            if advert.mask_public == advert.enc_public or self._repeats_own(advert):
                raise MessageError(f"peer {sender} advertised a key that is already used in this round")
            self._shared[sender] = self._state.secrets.agree_with(advert.mask_public, advert.enc_public, sender)
        self._adverts[sender] = received
        if sender != self._state.own_index:
            self._judge_link(sender)

    def open_link(self, index: int, fingerprint: bytes) -> None:
        """A link opened; it is false if it shows another certificate than its peer advertised."""
        self._state.post.links[index].fingerprint = fingerprint
        self._judge_link(index)

    def check_link(self, index: int) -> bool:
        """Whether the link to a peer shows the certificate that it advertised, as far as that is known."""
        if index in self._false_links:
            self._state.post.report(index, self._false_links[index])
            return False
        return True

    def have(self) -> frozenset[int]:
        """Peers whose advert is held."""
        return frozenset(self._adverts)

    def forwardable(self, index: int) -> Received | None:
        """The advert of a peer as it came."""
        return self._adverts.get(index)

    def advert(self, index: int) -> Advert:
        """The advert of a roster peer."""
        return _advert(self._adverts[index])

    def mask_secret(self, index: int) -> bytes:
        """X25519 secret of the mask keys of this peer and another."""
        return self._shared[index][0]

    def box_secret(self, index: int) -> bytes:
        """X25519 secret of the enc keys of this peer and another."""
        return self._shared[index][1]

    def propose(self) -> frozenset[int]:
        """Peers for a roster: all that advertised, without those who repeat an earlier peer's key."""
        used: set[bytes] = set()
        chosen = []
        for index, received in self._adverts.items():
            keys = _keys(_advert(received))
            if not used.intersection(keys):
                chosen.append(index)
            used.update(keys)
        return frozenset(chosen)

    def digest(self, roster: frozenset[int]) -> bytes:
        """T1 of a roster all of whose adverts are held."""
        state = hashlib.sha256(b"p2psa/1/roster" + self._state.parameters.t0 + struct.pack("<H", len(roster)))
        for index in sorted(roster):
            state.update(self._adverts[index].raw)
        return state.digest()

    def judge(self, decided: Decide, sender: int) -> bool:
        """Whether a roster can be adopted; False while adverts of it are missing.

        Raises:
            MessageError: it is too small, or two of its peers use one key.
            RoundFailedError: it leaves this peer out.
        """
        roster = indexes_of(decided.members)
        if not self._state.large_enough(roster):
            raise MessageError(
                f"peer {sender} decided on a roster of {len(roster)} peers, expected at least "
                f"{self._state.parameters.quorum}"
            )
        if self._state.own_index not in roster:
            raise RoundFailedError(f"the roster of {len(roster)} peers leaves this one out")
        absent = roster - self.have()
        if absent or self.digest(roster) != decided.root:
            for holder in self._views.holders(decided):
                self._requests.need(holder, Kind.ADVERTS, bits_of(absent or roster))
            return False
        keys = [key for index in roster for key in _keys(self.advert(index))]
        if len(set(keys)) != len(keys):
            raise MessageError(f"peer {sender} decided on a roster in which a key is used twice")
        return True

    def forget_secrets(self) -> None:
        """Drop the secrets shared with others."""
        self._shared.clear()

    def _judge_link(self, index: int) -> None:
        """A forwarded advert is its peer's, whatever link this peer has: it counts, and the link does not."""
        self._false_links.pop(index, None)
        known = self._adverts.get(index)
        if known is not None:
            try:
                self._check_fingerprint(index, _advert(known))
            except MessageError as error:
                self._false_links[index] = str(error)
                self._state.post.close(index)

    def _check_fingerprint(self, index: int, advert: Advert) -> None:
        live = self._state.post.links[index].fingerprint
        if live is not None and live != advert.fingerprint:
            raise MessageError(f"peer {index} advertised a certificate that is not the one of its link")

    def _repeats_own(self, advert: Advert) -> bool:
        own = {self._state.secrets.mask_public, self._state.secrets.enc_public}
        return not own.isdisjoint(_keys(advert))


def _advert(received: Received) -> Advert:
    assert isinstance(received.message, Advert)
    return received.message


def _keys(advert: Advert) -> tuple[bytes, bytes]:
    return advert.mask_public, advert.enc_public
