"""Real processes on this machine: `peerplan signal` and any number of `peerplan node`, with their events."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

import numpy as np
import structlog

from cli.demo.processes import Process
from protocol.identity import Identity

__all__ = ["Deployment", "NodeProcess"]

WITHIN_S = 180.0

structlog.configure(logger_factory=lambda *_args: structlog.PrintLogger(sys.stderr))  # the output is one JSON object


class NodeProcess:
    """One `peerplan node` and what it said since it was started."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[dict[str, Any]] = []
        self.process: Process
        self.pid = 0
        self._changed = asyncio.Event()

    def note(self, event: dict[str, Any]) -> None:
        """Take one event."""
        self.events.append(event)
        self._changed.set()
        self._changed = asyncio.Event()

    def of(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """Events of a kind whose fields have these values."""
        return [e for e in self.events if e.get("event") == kind and all(e.get(k) == v for k, v in fields.items())]

    async def until(self, *kinds: str, within_s: float = WITHIN_S, **fields: Any) -> dict[str, Any]:
        """The first event of one of these kinds with these values, now or later.

        Raises:
            AssertionError: it did not come; the message shows what came last.
        """
        try:
            async with asyncio.timeout(within_s):
                while not (found := [event for kind in kinds for event in self.of(kind, **fields)]):
                    await self._changed.wait()
        except TimeoutError:
            last = "; ".join(str(event)[:240] for event in self.events[-8:])
            raise AssertionError(
                f"{self.name}: no {' or '.join(kinds)} {fields} within {within_s:g} s; last: {last}"
            ) from None
        return found[0]


class Deployment:
    """`async with`: a signaling server; everything started through it is stopped at the end."""

    def __init__(self, folder: Path | None = None, *, gather_s: float = 1.0, absence_s: float = 15.0) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="peerplan-") if folder is None else None
        self.folder = Path(self._temporary.name) if self._temporary is not None else folder or Path()
        self.author = Identity(hashlib.sha256(b"author of a benchmark").digest())
        self.nodes: dict[str, NodeProcess] = {}
        self.signaling: Process
        self.signaling_pid = 0
        self.url = ""
        self._port = 0
        self._times = ["--gather-seconds", f"{gather_s:g}", "--absence-seconds", f"{absence_s:g}"]

    async def __aenter__(self) -> Self:
        await self.start_signaling()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(node.process.stop() for node in self.nodes.values()))
        await self.signaling.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

    async def start_signaling(self) -> None:
        """Start the signaling server, after the first time on the same port and with the same folder."""
        arguments = ["signal", "--port", str(self._port), "--folder", str(self.folder / "signaling"), *self._times]
        self.signaling = await Process.start(
            "signaling server", [*arguments, "--log-level", "error"], lambda _event: None
        )
        self.signaling_pid = self.signaling._process.pid  # noqa: SLF001 (as for nodes)
        self.url = str((await self.signaling.first_event())["url"])
        self._port = int(self.url.rpartition(":")[2])

    def save_data(self, name: str, arrays: dict[str, np.ndarray]) -> Path:
        """A node's data as a file."""
        path = self.folder / f"{name}.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]  # it takes any names
        return path

    async def node(
        self, name: str, data: Path, *, dataset: str = "data", options: tuple[str, ...] = ()
    ) -> NodeProcess:
        """Start a node, or start it again on the state folder it left; returns once it is registered."""
        node = self.nodes[name] = NodeProcess(name)
        node.process = await Process.start(
            name,
            [
                "node", self.url, "--data", f"{dataset}={data}", "--allow-author", self.author.peer_id,
                "--min-cohort", "3", "--min-survivors", "3", "--state", str(self.folder / name),
                "--wait", "--log-level", "error", *options,
            ],
            node.note,
        )  # fmt: skip
        node.pid = node.process._process.pid  # noqa: SLF001 (nobody else needs to know it)
        await node.until("registered")
        return node
