"""A TURN server on loopback, Debian's coturn, that takes credentials made of a shared secret."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shutil
import socket
import time
from pathlib import Path
from typing import Literal, Self

from signaling import IceServers
from tests.tls import make_certificate

__all__ = ["FIRST_PORT", "TURN_SERVER", "Over", "Relay"]

TURN_SERVER = shutil.which("turnserver")
WITHIN_S = 60.0
Over = Literal["udp", "tcp", "tls"]
SETTINGS = """
listening-ip=127.0.0.1
relay-ip=127.0.0.1
min-port={first}
use-auth-secret
static-auth-secret={secret}
realm=peerplan.test
allow-loopback-peers
no-cli
no-dtls
pidfile={folder}/turnserver.pid
userdb={folder}/turndb
verbose
log-file=stdout
"""
FIRST_PORT = 61_000
"""Of its relays: above those that Linux gives to sockets by itself."""
LISTENING = {
    "udp": "listening-port={port}\nno-tcp\nno-tls\n",
    "tcp": "listening-port={port}\nno-udp\nno-tls\n",
    "tls": "tls-listening-port={port}\nno-udp\nno-tcp\ncert={folder}/relay.pem\npkey={folder}/relay.key\n",
}
URLS = {
    "udp": "turn:127.0.0.1:{}?transport=udp",
    "tcp": "turn:127.0.0.1:{}?transport=tcp",
    "tls": "turns:127.0.0.1:{}",
}


class Relay:
    """`async with`: it listens for TURN over UDP, TCP or TLS alone; `log` is what it said so far."""

    def __init__(self, folder: Path, over: Over = "tcp") -> None:
        self.secret = secrets.token_hex(16).encode()
        self.log = ""
        self.certificate = folder / "relay.pem"
        """Who trusts it trusts the server, with `over` "tls"."""
        self._folder = folder
        self._over = over
        self._port = _free_port(socket.SOCK_DGRAM if over == "udp" else socket.SOCK_STREAM)
        self._process: asyncio.subprocess.Process
        self._reader: asyncio.Task[None]
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return URLS[self._over].format(self._port)

    def credentials(self) -> tuple[str, str]:
        """A username and password that it takes, made as for a page at /join."""
        told = json.loads(IceServers(turn=(self.url,), turn_secret=self.secret).told(time.time()))
        (server,) = told["ice_servers"]
        return server["username"], server["credential"]

    async def __aenter__(self) -> Self:
        if self._over == "tls":
            make_certificate(self.certificate, self._folder / "relay.key")
        settings = self._folder / "turnserver.conf"
        given = {"port": self._port, "first": FIRST_PORT, "secret": self.secret.decode(), "folder": self._folder}
        settings.write_text((SETTINGS + LISTENING[self._over]).format(**given), encoding="ascii")
        assert TURN_SERVER is not None
        self._process = await asyncio.create_subprocess_exec(
            *(TURN_SERVER, "-c", str(settings)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._reader = asyncio.create_task(self._read())
        await self.until(rf"listener opened on ?: 127\.0\.0\.1:{self._port}")
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


def _free_port(kind: socket.SocketKind) -> int:
    with socket.socket(type=kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
