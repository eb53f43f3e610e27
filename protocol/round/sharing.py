"""R1 (spec 07 §5): shares of this peer's two secrets go out in boxes, those of others come in."""

from __future__ import annotations

from protocol.errors import RoundError
from protocol.round.advertising import Advertising
from protocol.round.errors import MessageError
from protocol.round.leading import choose_mask_set
from protocol.round.messages import Ack, Decide, Received, Share
from protocol.round.state import RoundState
from protocol.secagg.keys import close_share_box, open_share_box, share_key
from protocol.secagg.parameters import bits_of, indexes_of
from protocol.secagg.shamir import coefficient_bytes, share_secret

__all__ = ["Sharing"]


class Sharing:
    """Shares held by this peer, and what others say they hold. `repr` shows no share."""

    def __init__(self, state: RoundState, advertising: Advertising) -> None:
        self._state = state
        self._advertising = advertising
        self._boxes: dict[int, bytes] = {}
        self._acks: dict[int, int] = {}
        self.held: dict[int, tuple[bytes, bytes]] = {}

    def __repr__(self) -> str:
        return f"Sharing(held={sorted(self.held)})"

    def keep_box(self, received: Received) -> None:
        """Keep the first box of a peer until its roster is known."""
        assert isinstance(received.message, Share)
        if received.sender not in self.held:
            self._boxes.setdefault(received.sender, received.message.box)

    def keep_ack(self, received: Received) -> None:
        """Whose shares a peer holds; it never holds fewer than it once did."""
        assert isinstance(received.message, Ack)
        self._acks[received.sender] = self._acks.get(received.sender, 0) | received.message.held

    def begin(self) -> None:
        """Deal the shares of this peer's self-mask seed and mask key to the roster."""
        state = self._state
        threshold, roster = state.parameters.threshold, sorted(state.roster)
        cut = coefficient_bytes(threshold)
        seed_shares = share_secret(
            state.secrets.self_mask_seed,
            threshold=threshold,
            indexes=roster,
            coefficients=state.coefficients[:cut],
        )
        key_shares = share_secret(
            state.secrets.mask_private, threshold=threshold, indexes=roster, coefficients=state.coefficients[cut:]
        )
        self.held[state.own_index] = (seed_shares[state.own_index], key_shares[state.own_index])
        for peer in roster:
            if peer != state.own_index:
                self._deal(peer, seed_shares[peer], key_shares[peer])

    def open_boxes(self) -> None:
        """Decrypt the boxes that came; one that does not open is reported and may be sent again."""
        for peer in sorted(self._state.roster.intersection(self._boxes)):
            box = self._boxes.pop(peer)
            try:
                self.held[peer] = self._open(peer, box)
            except RoundError as error:
                self._state.post.report(peer, str(error))

    def ack(self, view: int) -> Ack | None:
        """What to tell the leader: once all live peers' shares are here, or the stage is overdue."""
        if not self.held.keys() >= self._state.live(self._state.roster) and not self._state.overdue():
            return None
        return Ack(view, bits_of(set(self.held)))

    def propose(self, *, later_view: bool, waited: bool) -> frozenset[int] | None:
        """As leader: a mask set, once all live peers have answered; at the deadline they answer, so a grace later.

        Peers that were in this stage long before this one answered without its shares, and answer again. Those leave
        a later view two graces after it began: there it acts once it has `waited` one of them.
        """
        live = self._state.live(self._state.roster)
        last = self._state.overdue(graces=1)
        if not self._acks.keys() >= live and not (last or (later_view and waited)):
            return None
        chosen = choose_mask_set({i: held for i, held in self._acks.items() if i in self._state.roster})
        if not chosen >= live and not (waited if later_view else self._state.overdue()):
            return None
        if not self._state.large_enough(chosen) and not last:
            return None
        return chosen

    def judge(self, decided: Decide, sender: int) -> bool:
        """Whether a mask set can be adopted.

        Raises:
            MessageError: it is too small or reaches beyond the roster.
        """
        mask_set = indexes_of(decided.members)
        if not mask_set <= self._state.roster or not self._state.large_enough(mask_set):
            raise MessageError(
                f"peer {sender} decided on a mask set of {len(mask_set)} peers, expected at least "
                f"{self._state.parameters.quorum}, all of the roster"
            )
        return True

    def _deal(self, peer: int, seed_share: bytes, key_share: bytes) -> None:
        own, t1 = self._state.own_index, self._state.t1
        key = share_key(t1, self._advertising.box_secret(peer), sender=own, receiver=peer)
        box = close_share_box(key, t1, sender=own, receiver=peer, seed_share=seed_share, key_share=key_share)
        self._state.post.send(peer, Share(box))

    def _open(self, peer: int, box: bytes) -> tuple[bytes, bytes]:
        own, t1 = self._state.own_index, self._state.t1
        key = share_key(t1, self._advertising.box_secret(peer), sender=peer, receiver=own)
        return open_share_box(key, t1, sender=peer, receiver=own, box=box)
