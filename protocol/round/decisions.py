"""Leaders' decisions (spec 07 §3, §11): kept per kind and view, adopted at most once per kind."""

from __future__ import annotations

from collections.abc import Callable

from protocol.round.errors import MessageError
from protocol.round.messages import Decide, Received

__all__ = ["Decisions", "decision_in"]


class Decisions:
    """At most one decision of each kind is kept per view, so a leader of a later view cannot take another's place."""

    def __init__(self, leader_of: Callable[[int], int]) -> None:
        self._leader_of = leader_of
        self._kept: dict[int, dict[int, Received]] = {}
        self._adopted: dict[int, Received] = {}

    def keep(self, received: Received) -> None:
        """Keep a decision until its stage and view are reached.

        Raises:
            MessageError: the sender does not lead that view, or decided twice in it.
        """
        decision = received.message
        assert isinstance(decision, Decide)
        if received.sender != self._leader_of(decision.view):
            raise MessageError(f"peer {received.sender} decided in view {decision.view} but does not lead it")
        known = self._kept.setdefault(decision.kind, {}).setdefault(decision.view, received)
        if known.message != decision:
            raise MessageError(f"peer {received.sender} made two different decisions in view {decision.view}")

    def any(self, kind: int) -> bool:
        """Whether a decision of a kind is kept, be it adopted or not."""
        return bool(self._kept.get(kind))

    def candidates(self, kind: int, base: bytes, view: int) -> list[Received]:
        """Decisions on the right base, of views up to `view`, earliest first."""
        kept = self._kept.get(kind, {})
        return [
            kept[decided_in]
            for decided_in in sorted(kept)
            if decided_in <= view and decision_in(kept[decided_in]).base == base
        ]

    def strays(self, kind: int, base: bytes) -> list[Received]:
        """Decisions on another base than the one adopted, taken out: they can never become valid."""
        kept = self._kept.get(kind, {})
        return [kept.pop(view) for view in sorted(kept) if decision_in(kept[view]).base != base]

    def reject(self, received: Received) -> None:
        """Take out a decision that broke a rule."""
        decision = decision_in(received)
        self._kept[decision.kind].pop(decision.view, None)

    def adopt(self, received: Received) -> None:
        """Fix the decision of its kind for the whole attempt."""
        self._adopted.setdefault(decision_in(received).kind, received)

    def adopted(self, kind: int) -> Received | None:
        """The adopted decision of a kind."""
        return self._adopted.get(kind)

    def all_adopted(self) -> dict[int, Received]:
        """Every adopted decision by kind."""
        return dict(self._adopted)


def decision_in(received: Received) -> Decide:
    """The decision that a message is."""
    assert isinstance(received.message, Decide)
    return received.message
