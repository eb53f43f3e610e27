"""STUN and TURN servers that this node's library can use; what it would leave out without a word is refused.

aiortc takes the first STUN and the first TURN server and skips others, as it does `stuns:` and `turns:` over UDP.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from protocol.errors import LinkError
from python_node.mesh.config import IceServer

__all__ = ["check_ice_servers"]

_URL = re.compile(r"(stun|turn|turns):[^:?\[\]\s]+(?::(\d{1,5}))?(?:\?transport=(udp|tcp))?", re.ASCII)
_MOST = 65_535


def check_ice_servers(servers: Sequence[IceServer]) -> None:
    """Check that every one of these will be used.

    Raises:
        LinkError: more than one STUN or TURN server, or a URL of another form, `stuns:` among them.
    """
    kinds = [_kind(url) for server in servers for url in server.urls]
    for kind in ("STUN", "TURN"):
        if kinds.count(kind) > 1:
            raise LinkError(f"{kinds.count(kind)} {kind} servers: a Python node uses one, expected 1 at most")


def _kind(url: str) -> str:
    """STUN or TURN."""
    match = _URL.fullmatch(url)
    if match is None or not 0 < int(match[2] or 1) <= _MOST:
        raise LinkError(
            f"{url[:200]!r}: expected stun:HOST:PORT, turn:HOST:PORT[?transport=tcp] or turns:HOST:PORT, "
            "HOST a name or an IPv4 address"
        )
    scheme, _, transport = match.groups()
    if scheme == "stun" and transport is not None:
        raise LinkError(f"{url!r}: a STUN server has no transport, expected stun:HOST:PORT")
    if scheme == "turns" and transport == "udp":
        raise LinkError(
            f"{url!r}: a Python node speaks TLS to a TURN server over TCP alone, expected turns:HOST:PORT"
        )
    return "STUN" if scheme == "stun" else "TURN"
