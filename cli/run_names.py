"""Runs by the first digits of their id."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from cli.errors import USAGE, CommandError
from protocol.signaling import RunStatus
from python_node.signaling_link import SignalingSession

__all__ = ["all_runs", "resolve_run"]

_PREFIX = re.compile(r"[0-9a-f]{4,64}")


async def all_runs(session: SignalingSession, *, plan: str | None = None) -> AsyncIterator[RunStatus]:
    """Every run this peer may see, oldest first."""
    after: int | None = 0
    while after is not None:
        page = await session.list_runs(plan=plan, after=after)
        for status in page.runs:
            yield status
        after = page.next


async def resolve_run(session: SignalingSession, name: str) -> str:
    """A run's id from its first digits, at least four of them.

    Raises:
        CommandError: no such digits, no such run, or several.
    """
    if not _PREFIX.fullmatch(name):
        raise CommandError(
            f"run {name[:80]!r}: expected the first 4 to 64 hexadecimal digits of a run id",
            code="usage",
            exit_status=USAGE,
        )
    if len(name) == 64:
        return name
    found = [status.run async for status in all_runs(session) if status.run.startswith(name)]
    if not found:
        raise CommandError(
            f"run {name}: signaling server {session.url} shows no run of these digits", code="unknown-run"
        )
    if len(found) > 1:
        raise CommandError(
            f"run {name}: {len(found)} runs at {session.url} start with these digits; give more of them",
            code="ambiguous-run",
        )
    return found[0]
