"""End a call of ONNX Runtime from outside: a graph may loop for hours, and nothing inside it can be trusted to stop.

ONNX Runtime looks at `terminate` between two operators, those inside a Loop included, so a call ends within the time
of one operator. Loading a graph has a flag of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

__all__ = ["POLL_S", "Watchdog"]

POLL_S = 0.05
"""Seconds between two looks at whether the call shall end."""


class Watchdog:
    """Watches one call from a thread of its own; used as a context manager around it.

    `end` is called once, when `cancelled()` is true or `limit_s` seconds have passed; afterwards `reason` says which:
    "cancelled" or "time". What `cancelled` raises ends the call as well, and is raised again on leaving.
    """

    def __init__(
        self, end: Callable[[], None], *, limit_s: float, cancelled: Callable[[], bool] | None = None
    ) -> None:
        self.reason: str | None = None
        self._end, self._limit_s, self._cancelled = end, limit_s, cancelled
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._watch, name="peerplan-watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _watch(self) -> None:
        deadline = time.monotonic() + self._limit_s
        while not self._over.wait(max(0.0, min(POLL_S, deadline - time.monotonic()))):
            self.reason = self._found(deadline)
            if self.reason is not None:
                self._end()
                return

    def _found(self, deadline: float) -> str | None:
        try:
            if self._cancelled is not None and self._cancelled():
                return "cancelled"
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._error = error
            return "cancelled"
        return "time" if time.monotonic() >= deadline else None
