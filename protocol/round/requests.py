"""NEED and its answers (spec 07 §3): asked once per peer and stage, answered a bounded number of times."""

from __future__ import annotations

from collections.abc import Callable

from protocol.round.errors import MessageError
from protocol.round.messages import BULK_TYPES, Forward, Kind, Message, Need, Received
from protocol.round.state import RoundState
from protocol.secagg.parameters import indexes_of

__all__ = ["Requests"]

_MAX_ANSWERS = 4
"""Times one peer is answered the same kind of NEED: an answer is larger than the question."""


class Requests:
    """What this peer asked of whom in this stage, and what it answered in this attempt."""

    def __init__(self, state: RoundState) -> None:
        self._state = state
        self._asked: set[tuple[int, int]] = set()
        self._answered: dict[tuple[int, int], int] = {}
        self._sources: dict[int, Callable[[int], Received | Message | None]] = {}
        state.on_enter.append(self._asked.clear)

    def offer(self, what: int, source: Callable[[int], Received | Message | None]) -> None:
        """Name where answers of a kind come from: a signed message to forward, or one to send as it is."""
        self._sources[what] = source

    def need(self, preferred: int, what: int, members: int) -> None:
        """Ask a peer, or every live peer where that one is gone or is this peer itself."""
        own = self._state.own_index
        reachable = preferred != own and self._state.is_live(preferred)
        for index in (preferred,) if reachable else tuple(self._state.post.links):
            if self._state.is_live(index) and (index, what) not in self._asked:
                self._asked.add((index, what))
                self._state.post.send(index, Need(what, members))

    def asked(self, index: int, what: int) -> bool:
        """Whether a peer was asked for this in the current stage."""
        return (index, what) in self._asked

    def answer(self, sender: int, need: Need) -> None:
        """Send a peer what it lacks and this peer holds.

        Raises:
            MessageError: it asks too often.
        """
        count = self._answered.get((sender, need.what), 0)
        if count >= _MAX_ANSWERS:
            raise MessageError(f"peer {sender} asked for the same thing more than {_MAX_ANSWERS} times")
        self._answered[sender, need.what] = count + 1
        source = self._sources[need.what]
        items = [0] if need.what == Kind.CERTIFICATE else sorted(indexes_of(need.members))
        for item in items:
            found = source(item)
            if isinstance(found, Received):
                if type(found.message) in BULK_TYPES:
                    self._state.post.relay(sender, found.raw, bulk=True)
                else:
                    self._state.post.send(sender, Forward(bytes(found.raw)))
            elif found is not None:
                self._state.post.send(sender, found)
