"""A token bucket: how fast one connection is read."""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """`burst` messages at once, `per_s` of them sustained; time is an argument."""

    def __init__(self, *, per_s: float, burst: int, now: float) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = now

    def take(self, now: float) -> float:
        """Take one token; the seconds to wait before acting on it, 0 while the bucket is not empty."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s) - 1
        self._at = now
        return max(0.0, -self._tokens / self._per_s)
