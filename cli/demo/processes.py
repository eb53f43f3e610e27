"""The demo's processes: `peerplan signal` and `peerplan node`, started as anybody would and read line by line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli.errors import CommandError

__all__ = ["Process", "start_node", "start_signaling"]

_START_S = 60.0
_STOP_S = 10.0


class Process:
    """A `peerplan` command with --json on a subprocess; its events go to `on_event` as they come."""

    def __init__(
        self, name: str, process: asyncio.subprocess.Process, on_event: Callable[[dict[str, Any]], None]
    ) -> None:
        self.name = name
        self._process = process
        self._on_event = on_event
        self._errors: deque[str] = deque(maxlen=20)
        self._first: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._readers = (asyncio.ensure_future(self._read()), asyncio.ensure_future(self._read_errors()))

    @classmethod
    async def start(cls, name: str, arguments: list[str], on_event: Callable[[dict[str, Any]], None]) -> Process:
        """Start `peerplan ARGUMENTS --json`."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cli.main",
            *arguments,
            "--json",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            limit=1 << 20,
        )
        return cls(name, process, on_event)

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.returncode is None

    async def first_event(self) -> dict[str, Any]:
        """The first event.

        Raises:
            CommandError: the process ended or stayed silent instead.
        """
        done, _ = await asyncio.wait({self._first}, timeout=_START_S)
        if not done:
            raise CommandError(f"{self.name}: silent for {_START_S:g} s after its start", code="demo-process")
        return self._first.result()

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        if self.running:
            self._process.kill()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL where that does not help."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_S)
        except TimeoutError:
            self.kill()
            await self._process.wait()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            event = json.loads(line)
            if not self._first.done():
                self._first.set_result(event)
            self._on_event(event)
        status = await self._process.wait()
        await self._readers[1]
        if not self._first.done():
            reason = " | ".join(self._errors) or "no word"
            self._first.set_exception(
                CommandError(f"{self.name}: ended with status {status} at its start: {reason}", code="demo-process")
            )

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._errors.append(line.decode(errors="replace").rstrip())


async def start_signaling(folder: Path, *, gather_s: float) -> tuple[Process, str]:
    """A signaling server on a free port of this machine; gives its URL."""
    process = await Process.start(
        "signaling server",
        ["signal", "--port", "0", "--folder", str(folder), "--gather-seconds", f"{gather_s:g}"],
        lambda _event: None,
    )
    return process, str((await process.first_event())["url"])


async def start_node(
    index: int,
    *,
    url: str,
    shard: Path,
    author: str,
    state: Path,
    training_seed: str,
    on_event: Callable[[dict[str, Any]], None],
) -> Process:
    """A node with one shard, whose owner lets one author train in cohorts of three and more."""
    return await Process.start(
        f"node {index + 1}",
        [
            "node",
            url,
            "--data",
            f"demo={shard}",
            "--allow-author",
            author,
            "--min-cohort",
            "3",
            "--min-survivors",
            "3",
            "--state",
            str(state),
            "--training-seed",
            training_seed,
        ],
        on_event,
    )
