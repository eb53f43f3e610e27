"""A TURN server on loopback, Debian's coturn, that takes credentials made of a shared secret."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import socket
from pathlib import Path
from typing import Self

__all__ = ["TURN_SERVER", "Relay"]

TURN_SERVER = shutil.which("turnserver")
WITHIN_S = 60.0
SETTINGS = """
listening-ip=127.0.0.1
listening-port={port}
relay-ip=127.0.0.1
use-auth-secret
static-auth-secret={secret}
realm=peerplan.test
allow-loopback-peers
no-cli
no-tls
no-dtls
no-udp
pidfile={folder}/turnserver.pid
userdb={folder}/turndb
verbose
log-file=stdout
"""


class Relay:
    """`async with`: it listens for TURN over TCP; `log` is what it said so far."""

    def __init__(self, folder: Path) -> None:
        self.secret = secrets.token_hex(16).encode()
        self.log = ""
        self._folder = folder
        self._port = _free_port()
        self._process: asyncio.subprocess.Process
        self._reader: asyncio.Task[None]
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"turn:127.0.0.1:{self._port}?transport=tcp"

    async def __aenter__(self) -> Self:
        settings = self._folder / "turnserver.conf"
        given = {"port": self._port, "secret": self.secret.decode(), "folder": self._folder}
        settings.write_text(SETTINGS.format(**given), encoding="ascii")
        assert TURN_SERVER is not None
        self._process = await asyncio.create_subprocess_exec(
            *(TURN_SERVER, "-c", str(settings)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._reader = asyncio.create_task(self._read())
        await self.until(r"TCP listener opened on : 127\.0\.0\.1")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reader

    async def until(self, pattern: str) -> None:
        """Wait until its log has something that fits."""
        try:
            async with asyncio.timeout(WITHIN_S):
                while re.search(pattern, self.log) is None:
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"turnserver did not say {pattern!r}: {self.log[-3000:]}") from None

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.log += line.decode(errors="replace")
            self._changed.set()
            self._changed = asyncio.Event()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
