"""The end of R5 (spec 07 §9): t equal signed results end the round."""

from __future__ import annotations

import hashlib

from protocol.round.actions import Completed
from protocol.round.errors import RoundFailedError
from protocol.round.messages import RESULT_LABEL, Received, Result, result_payload
from protocol.round.state import RoundState
from protocol.secagg.parameters import bits_of

__all__ = ["Agreeing"]


class Agreeing:
    """Results of others, and this peer's own."""

    def __init__(self, state: RoundState) -> None:
        self._state = state
        self._results: dict[int, Result] = {}
        self._uncounted: set[int] = set()
        self._signatures: dict[int, bytes] = {}
        self._refused: set[int] = set()
        self._own: Result | None = None

    @property
    def finished(self) -> frozenset[int]:
        """Peers that sent a result: they say that they hold every sum."""
        return frozenset(self._results)

    def keep(self, received: Received) -> None:
        """Keep the first result of a peer; its signature was verified when it was decoded."""
        assert isinstance(received.message, Result)
        if received.sender not in self._results:
            self._results[received.sender] = received.message
            self._uncounted.add(received.sender)

    def provide(self, model_digest: str, tail: bytes) -> None:
        """Sign this peer's result and tell everyone."""
        digest, tail_digest = bytes.fromhex(model_digest), hashlib.sha256(tail).digest()
        survivors = bits_of(self._state.survivors)
        payload = result_payload(self._state.parameters.round_id, digest, survivors, tail_digest)
        signature = self._state.identity.sign(RESULT_LABEL, payload)
        self._own = Result(digest, tail_digest, survivors, signature)
        self._signatures[self._state.own_index] = signature
        self._state.post.broadcast(self._own, to_self=False)

    def step(self) -> Completed | None:
        """What completes the round, once t results are equal.

        Others may lack sums until the deadline, when they ask who holds them: the results come a grace later.

        Raises:
            RoundFailedError: fewer agree by then.
        """
        own, threshold = self._own, self._state.parameters.threshold
        if own is None:
            return None
        for index in sorted(self._uncounted):
            if len(self._signatures) < threshold:
                self._uncounted.remove(index)
                self._count(index, self._results[index], own)
        if len(self._signatures) >= threshold:
            return Completed(own.model_digest.hex(), self._state.survivors, own.tail_digest, dict(self._signatures))
        if self._state.overdue(graces=1):
            raise RoundFailedError(
                f"{len(self._signatures)} peers agree on the result, expected {threshold}; "
                f"peers {sorted(self._refused)} report another"
            )
        return None

    def _count(self, index: int, result: Result, own: Result) -> None:
        content = (result.model_digest, result.tail_digest, result.survivors)
        if content == (own.model_digest, own.tail_digest, own.survivors):
            self._signatures[index] = result.signature
        else:
            self._refused.add(index)
            self._state.post.report(index, f"peer {index} reports another result")
