"""Adopting leaders' decisions and making this peer's own (spec 07 §3, §11)."""

from __future__ import annotations

from collections.abc import Callable

from protocol.round.decisions import decision_in
from protocol.round.errors import MessageError, RoundFailedError
from protocol.round.messages import Decide, Kind
from protocol.round.state import RoundState
from protocol.round.views import Views
from protocol.secagg.parameters import bits_of

__all__ = ["Deciding"]

_NAMES = {Kind.ROSTER: "roster", Kind.MASKED: "mask set", Kind.SURVIVORS: "survivor set"}

Judge = Callable[[Decide, int], bool]


class Deciding:
    """What all stages that end by a decision have in common."""

    def __init__(self, state: RoundState, views: Views) -> None:
        self._state = state
        self._views = views

    def adopted(self, kind: int, base: bytes, judge: Judge) -> Decide | None:
        """The decision of a kind, adopted on the first call that finds one which `judge` accepts.

        Raises:
            RoundFailedError: `judge` finds that this peer cannot go on with it.
        """
        decisions = self._views.decisions
        if not decisions.any(kind):  # the common case, asked after every message
            return None
        for stray in decisions.strays(kind, base):
            self._state.post.report(stray.sender, "decided on another round, roster or mask set than this peer holds")
        adopted = decisions.adopted(kind)
        if adopted is not None:
            return decision_in(adopted)
        for received in decisions.candidates(kind, base, self._views.view):
            decided = decision_in(received)
            try:
                if judge(decided, received.sender):
                    self._views.adopt(received)
                    return decided
            except MessageError as error:
                self._state.post.report(received.sender, str(error))
                decisions.reject(received)
                self._views.depose(received)
                self._state.changes += 1
        return None

    def may_decide(self, kind: int, base: bytes) -> bool:
        """Whether this peer leads and no earlier decision may still turn out to be valid."""
        if not self._views.leads():
            return False
        pending = self._views.decisions.candidates(kind, base, self._views.view)
        return not pending or self._views.may_overrule()

    def decide(self, kind: int, base: bytes, members: frozenset[int], root: bytes) -> None:
        """As leader: decide on a set of peers, or of chunks for LOST.

        Raises:
            RoundFailedError: too few peers for that set.
        """
        if kind != Kind.LOST and not self._state.large_enough(members):
            raise RoundFailedError(
                f"only {len(members)} peers for the {_NAMES[kind]}, expected at least {self._state.parameters.quorum}"
            )
        self._state.post.broadcast(Decide(kind, self._views.view, base, bits_of(members), root))
        self._state.changes += 1
