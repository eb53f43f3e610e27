"""STUN and TURN servers that the page at /join is told of, with credentials that expire.

A TURN server shares a secret with this one and with nobody else. The page gets a username that says until when it is
valid, and as password the HMAC-SHA1 of that username under the secret (draft-uberti-behave-turn-rest-00; coturn's
`use-auth-secret`), so that what a page once held opens nothing later (docs/adr/0019).
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from dataclasses import dataclass, field

import msgspec

from signaling.errors import ConfigError

__all__ = ["IceServers"]

_MOST = 4
_HOST = r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+"
_ADDRESS = re.compile(rf"(stun|turn)s?:(?:{_HOST}):(\d{{1,5}})(?:\?transport=(?:udp|tcp))?", re.ASCII)
_LEAST_SECRET_BYTES = 16
_SHORTEST_S, _LONGEST_S = 600, 7 * 86_400


@dataclass(frozen=True, kw_only=True)
class IceServers:
    """What every page is told, beside servers that its owner names.

    `stun` and `turn` are addresses as in WebRTC ("stun:host:3478", "turn:host:3478?transport=tcp"), four of either at
    most. `turn_secret` is what the TURN servers know (16 bytes at least); it never leaves this process.
    """

    stun: tuple[str, ...] = ()
    turn: tuple[str, ...] = ()
    turn_secret: bytes = field(default=b"", repr=False)
    turn_lifetime_s: int = 12 * 3600
    """How long a credential opens new relays: 10 minutes to 7 days. Pages ask for another at half of it."""

    def __post_init__(self) -> None:
        _check("stun", self.stun)
        _check("turn", self.turn)
        if self.turn and len(self.turn_secret) < _LEAST_SECRET_BYTES:
            raise ConfigError(
                f"the TURN servers' secret has {len(self.turn_secret)} bytes, expected {_LEAST_SECRET_BYTES} or more"
            )
        if not _SHORTEST_S <= self.turn_lifetime_s <= _LONGEST_S:
            raise ConfigError(
                f"TURN credentials for {self.turn_lifetime_s} s, expected {_SHORTEST_S} to {_LONGEST_S} s"
            )

    def told(self, now_s: float) -> bytes:
        """What a page gets at `now_s` (Unix time), as JSON; each answer has a username of its own."""
        servers = [{"urls": [url]} for url in self.stun]
        if not self.turn:
            return msgspec.json.encode({"ice_servers": servers, "lifetime_s": None})
        username = f"{int(now_s) + self.turn_lifetime_s}:{secrets.token_hex(8)}"
        password = base64.b64encode(hmac.digest(self.turn_secret, username.encode(), "sha1")).decode()
        relays = {"urls": list(self.turn), "username": username, "credential": password}
        return msgspec.json.encode({"ice_servers": [*servers, relays], "lifetime_s": self.turn_lifetime_s})


def _check(kind: str, addresses: tuple[str, ...]) -> None:
    if len(addresses) > _MOST:
        raise ConfigError(f"{len(addresses)} {kind.upper()} servers, expected {_MOST} at most")
    for address in addresses:
        match = _ADDRESS.fullmatch(address)
        fits = match is not None and match[1] == kind and 0 < int(match[2]) < 1 << 16
        if not fits or (kind == "stun" and "?" in address):  # browsers then make no connection at all
            raise ConfigError(f"{address!r} is no {kind.upper()} server, expected {kind}:HOST:PORT")
