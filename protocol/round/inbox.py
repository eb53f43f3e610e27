"""Where each message goes (spec 07 §3): the checks that need no later stage, then the part that keeps it."""

from __future__ import annotations

from collections.abc import Callable

from protocol.round.advertising import Advertising
from protocol.round.agreeing import Agreeing
from protocol.round.collecting import Collecting
from protocol.round.errors import MessageError
from protocol.round.messages import (
    Abort,
    Ack,
    Advert,
    Assign,
    Certificate,
    Chunk,
    Commit,
    Decide,
    Forward,
    Have,
    Kind,
    Need,
    Received,
    Result,
    Reveal,
    Share,
    Status,
    Sum,
    Vote,
)
from protocol.round.requests import Requests
from protocol.round.sharing import Sharing
from protocol.round.state import RoundState, Stage
from protocol.round.summing import Summing
from protocol.round.unmasking import Unmasking
from protocol.round.views import Views
from protocol.round.voting import Voting

__all__ = ["Inbox"]

_FORWARDED = frozenset({Advert, Decide, Commit, Vote, Result})
_AT_THE_END = frozenset({Need, Status, Reveal})


class Inbox:
    """Hands each message to its stage. It makes no transition: a message for a later stage waits where it is kept."""

    def __init__(
        self,
        state: RoundState,
        requests: Requests,
        views: Views,
        advertising: Advertising,
        sharing: Sharing,
        collecting: Collecting,
        voting: Voting,
        unmasking: Unmasking,
        summing: Summing,
        agreeing: Agreeing,
    ) -> None:
        self._state = state
        self._requests = requests
        self._views = views
        self._advertising = advertising
        self._collecting = collecting
        self._summing = summing
        # of most types only what they say matters, not over which link they came
        self._keepers: dict[type, Callable[[Received], None]] = {
            Decide: views.decisions.keep,
            Share: sharing.keep_box,
            Ack: sharing.keep_ack,
            Have: collecting.keep_have,
            Chunk: collecting.keep_chunk,
            Assign: collecting.keep_assignment,
            Vote: voting.keep_vote,
            Certificate: voting.keep_certificate,
            Reveal: unmasking.keep,
            Result: agreeing.keep,
            Status: views.keep_status,
        }
        state.post.on_own = lambda received: self.keep(received, via=state.own_index)

    def keep(self, received: Received, *, via: int, forwarded: bool = False) -> None:
        """Check a message that came over the link to peer `via`, which may have `forwarded` it, and keep it.

        Raises:
            ProtocolError: it breaks a rule.
            RoundFailedError: with it this attempt cannot go on.
        """
        message = received.message
        if received.sender != via and not forwarded and not isinstance(message, Sum):  # sums carry their signature
            raise MessageError(f"peer {via} sent a message in the name of peer {received.sender}")
        if self._state.stage is Stage.DONE and type(message) not in _AT_THE_END:
            return  # this peer only helps others to the end
        keep = self._keepers.get(type(message))
        if keep is not None:
            keep(received)
            return
        match message:
            case Advert():
                self._advertising.keep(received, via=via)
            case Commit():
                answered = forwarded and self._views.vote is None and self._requests.asked(via, Kind.COMMITS)
                self._collecting.keep_commit(received, answered=answered)
            case Sum():
                self._summing.keep(received, made_here=via == self._state.own_index)
            case Forward(message=raw):
                self._keep_forwarded(raw, via)
            case Need():
                self._requests.answer(received.sender, message)
            case Abort():
                self._state.post.leave(received.sender)

    def _keep_forwarded(self, raw: bytes, via: int) -> None:
        inner = self._state.post.codec.decode(raw, bulk=False)
        if type(inner.message) not in _FORWARDED:
            raise MessageError(f"peer {via} forwarded a {type(inner.message).__name__}")
        if inner.sender != self._state.own_index:
            self.keep(inner, via=via, forwarded=True)
            if isinstance(inner.message, Decide):
                self._views.note_adopted(inner.message, via)
