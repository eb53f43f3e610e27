"""Run a program's main coroutine on uvloop where it is installed: twice the throughput of a link for one line."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["loop_name", "run"]

_T = TypeVar("_T")


def _factory() -> Any:
    try:
        import uvloop  # noqa: PLC0415 (optional: it does not exist for every system)
    except ImportError:
        return None
    return uvloop.new_event_loop


def loop_name() -> str:
    """Which event loop `run` uses: "uvloop" or "asyncio"."""
    return "asyncio" if _factory() is None else "uvloop"


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Like `asyncio.run`, on uvloop where possible."""
    with asyncio.Runner(loop_factory=_factory()) as runner:
        return runner.run(main)
