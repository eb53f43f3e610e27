"""The second half of R3 (spec 07 §7): one vote per peer and round, and the quorum certificate of t votes."""

from __future__ import annotations

from protocol.errors import ProtocolError
from protocol.round.collecting import Collecting
from protocol.round.errors import MessageError, RoundFailedError
from protocol.round.messages import Certificate, Decide, Kind, Received, Vote
from protocol.round.requests import Requests
from protocol.round.state import RoundState
from protocol.round.views import Views
from protocol.secagg.parameters import bits_of, indexes_of

__all__ = ["Voting"]


class Voting:
    """Votes seen by this peer, its own one, and the certificate."""

    def __init__(self, state: RoundState, views: Views, collecting: Collecting, requests: Requests) -> None:
        self._state = state
        self._views = views
        self._collecting = collecting
        self._requests = requests
        self._votes: dict[int, Received] = {}
        self._early: dict[int, Received] = {}
        self.certificate: Certificate | None = None

    def keep_vote(self, received: Received) -> None:
        """Keep the first vote of a peer.

        Raises:
            MessageError: it voted for something else before.
        """
        known = self._votes.setdefault(received.sender, received)
        if known.message != received.message:
            raise MessageError(f"peer {received.sender} voted for two different survivor sets")

    def keep_certificate(self, received: Received) -> None:
        """Keep the certificate once it is checked; before there is a mask set, the first one of each peer.

        Raises:
            ProtocolError: it is of another or too small set, or has too few valid votes.
        """
        if self.certificate is not None:
            return
        if not self._state.t2:
            self._early.setdefault(received.sender, received)
            return
        certificate = received.message
        assert isinstance(certificate, Certificate)
        if received.sender != self._state.own_index:
            self._check(certificate, received.sender)
        self.certificate = certificate

    def begin(self) -> None:
        """The mask set is known: check the certificates that came before it."""
        early, self._early = self._early, {}
        for received in early.values():
            try:
                self.keep_certificate(received)
            except ProtocolError as error:
                self._state.post.report(received.sender, str(error))

    def judge(self, decided: Decide, sender: int) -> bool:
        """Whether this peer can vouch for a survivor set; False while it lacks the commits that give its root.

        Raises:
            MessageError: the set is too small or reaches beyond the mask set.
        """
        survivors = indexes_of(decided.members)
        if not survivors <= self._state.mask_set or not self._state.large_enough(survivors):
            raise MessageError(
                f"peer {sender} decided on a survivor set of {len(survivors)} peers, expected at least "
                f"{self._state.parameters.quorum}, all of the mask set"
            )
        if self._collecting.root(survivors) != decided.root:
            absent = decided.members & ~self._collecting.store.commits
            for holder in self._views.holders(decided):
                self._requests.need(holder, Kind.COMMITS, absent or decided.members)
            return False
        return True

    def vote(self, decided: Decide) -> None:
        """Cast this peer's one vote in the round; it is on disk before it leaves."""
        if self._views.vote is not None or self._state.own_index not in self._state.mask_set:
            return
        vote = Vote(self._state.t2, decided.members, decided.root)
        self._state.post.persist("voted", f"{vote.t2.hex()}:{vote.survivors:x}:{vote.root.hex()}")
        self._views.expect_soon()
        raw = self._state.post.encode(vote)
        self._views.cast(Received(sender=self._state.own_index, message=vote, raw=raw))

    def gather(self, decided: Decide) -> None:
        """As leader: make the certificate once t equal votes are here.

        Raises:
            RoundFailedError: too few votes came in time.
        """
        if self.certificate is not None:
            return
        threshold = self._state.parameters.threshold
        wanted = Vote(self._state.t2, decided.members, decided.root)
        equal = {i for i, vote in self._votes.items() if vote.message == wanted and i in self._state.mask_set}
        if len(equal) < threshold:
            if self._views.is_left():
                raise RoundFailedError(f"{len(equal)} votes for the survivor set, expected {threshold}")
            return
        voters = sorted(equal)[:threshold]
        signatures = tuple(bytes(self._votes[i].raw[-64:]) for i in voters)
        self._state.post.broadcast(
            Certificate(self._state.t2, decided.members, decided.root, bits_of(set(voters)), signatures)
        )

    def _check(self, certificate: Certificate, sender: int) -> None:
        survivors, voters = indexes_of(certificate.survivors), indexes_of(certificate.voters)
        threshold = self._state.parameters.threshold
        if certificate.t2 != self._state.t2 or not survivors <= self._state.mask_set:
            raise MessageError(f"peer {sender} sent a certificate for another mask set")
        if not self._state.large_enough(survivors):
            raise MessageError(
                f"peer {sender} sent a certificate for {len(survivors)} survivors, expected at least "
                f"{self._state.parameters.quorum}"
            )
        if len(voters) < threshold or not voters <= self._state.mask_set:
            raise MessageError(
                f"peer {sender} sent a certificate of {len(voters)} votes, expected {threshold} of the mask set"
            )
        self._state.post.codec.verify_votes(certificate, sorted(voters))
