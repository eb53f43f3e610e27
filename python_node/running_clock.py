"""Seconds in which this process ran: after a starved, stopped or sleeping one goes on, nobody else is late for it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["RunningClock"]

_SHORTEST_STOP_S = 1.0
"""Less is the lateness of timers: a page that nobody looks at has them once per second."""


class RunningClock:
    """A monotonic clock that leaves out stretches in which this process did not run.

    Whoever made it reads it at least every `beat_s` while the process runs, so that a longer time between two
    readings is one in which it did not. Every reading finds that out by itself: it does not matter which timer or
    message comes first afterwards.

    Args:
        read: a monotonic clock, in seconds.
        beat_s: the longest time between two readings while the process runs.
    """

    def __init__(self, read: Callable[[], float], *, beat_s: float) -> None:
        self._read = read
        self._beat_s = beat_s
        self._read_at = read()
        self._left_out_s = 0.0

    def now(self) -> float:
        """Seconds, less those in which the process did not run."""
        time = self._read()
        late = time - self._read_at - self._beat_s
        if late >= _SHORTEST_STOP_S:
            self._left_out_s += late
        self._read_at = time
        return time - self._left_out_s

    def when(self, due: float) -> float:
        """What the underlying clock shows when this one shows `due`, if the process runs until then."""
        return due + self._left_out_s
