"""Introductions (spec 03 §7.2): for a while, one peer may relay to the holders of a run's model."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.identity import short
from protocol.signaling import codes
from signaling.errors import RefusedError

__all__ = ["Introductions"]


@dataclass(frozen=True)
class _Open:
    asker: str
    holders: frozenset[str]
    until: float


class Introductions:
    """Open introductions by id; expired ones are dropped whenever the table is touched."""

    def __init__(self, *, seconds: float, per_peer: int) -> None:
        self._seconds = seconds
        self._per_peer = per_peer
        self._open: dict[str, _Open] = {}

    def open(self, via: str, asker: str, holders: tuple[str, ...], now: float) -> None:
        """Let `asker` and `holders` relay under `via`.

        Raises:
            RefusedError: the asker has too many open introductions.
        """
        self.expire(now)
        mine = sum(1 for item in self._open.values() if item.asker == asker)
        if mine >= self._per_peer:
            raise RefusedError(
                codes.RATE_LIMITED,
                f"{short(asker)} has {mine} open introductions, at most {self._per_peer} are allowed",
            )
        self._open[via] = _Open(asker, frozenset(holders), now + self._seconds)

    def allows(self, via: str, sender: str, to: str, now: float) -> bool:
        """Whether `via` joins the two: one of them asked, the other holds."""
        item = self._open.get(via)
        if item is None or now >= item.until:
            return False
        return (sender == item.asker and to in item.holders) or (to == item.asker and sender in item.holders)

    def expire(self, now: float) -> None:
        """Drop what is over; they are in order of their ends."""
        while self._open:
            via = next(iter(self._open))
            if now < self._open[via].until:
                return
            del self._open[via]
