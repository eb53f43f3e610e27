"""JavaScript nodes in a process of their own, and the events they told."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from tests.e2e.data import examples

SCRIPTS = Path(__file__).parent
WITHIN_S = 180.0


def owned_examples(name: str) -> dict[str, np.ndarray]:
    """The examples of a node's owner, by the node's name."""
    return examples(int(hashlib.sha256(name.encode()).hexdigest()[:6], 16))


class JsPeer:
    """Started with `start`; `until` waits for an event, `ask` sends a command."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[dict[str, Any]] = []
        self.options: dict[str, Any] = {}
        self.stderr = b""
        self._process: asyncio.subprocess.Process | None = None
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, options: dict[str, Any], *, script: str = "peer.mjs") -> None:
        self.options = options
        self._process = await asyncio.create_subprocess_exec(
            "node",
            str(SCRIPTS / script),
            json.dumps(options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._read_errors())]
        await self.until("registered")

    def of(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Events of a name whose fields have these values."""
        return [e for e in self.events if e["name"] == event and all(e.get(k) == v for k, v in fields.items())]

    async def until(self, event: str, *, within_s: float = WITHIN_S, **fields: Any) -> dict[str, Any]:
        """The first event of a name with these values, now or later."""
        try:
            async with asyncio.timeout(within_s):
                while not (found := self.of(event, **fields)):
                    await self._changed.wait()
        except TimeoutError:
            last = [str(e)[:300] for e in self.events[-8:]]
            raise AssertionError(
                f"{self.name}: no {event} {fields} within {within_s:g} s; last {last}; stderr {self.stderr[-2000:]!r}"
            ) from None
        return found[0]

    async def next_event(self, *, within_s: float = WITHIN_S) -> None:
        """Wait until something more was told."""
        changed = self._changed
        async with asyncio.timeout(within_s):
            await changed.wait()

    async def ask(self, **command: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()

    async def exit_code(self, *, within_s: float = 60.0) -> int:
        """What it ended with, by itself."""
        assert self._process is not None
        async with asyncio.timeout(within_s):
            return await self._process.wait()

    def kill(self) -> None:
        """End it without a word."""
        assert self._process is not None
        self._process.kill()

    async def until_stopped(self) -> None:
        """Until it got SIGSTOP, as from itself where `signals` says so."""
        assert self._process is not None
        await asyncio.to_thread(os.waitid, os.P_PID, self._process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        """End a stop."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def close(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await asyncio.gather(*self._tasks)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.events.append(json.loads(line))
            self._changed.set()
            self._changed = asyncio.Event()

    async def _read_errors(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.stderr += line
