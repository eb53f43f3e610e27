"""Every limit and setting of the signaling server, with its unit, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from protocol.encoding import parse_hex
from signaling.errors import ConfigError
from signaling.ice_servers import IceServers
from signaling.join_page import BUILT

__all__ = ["Limits", "SignalingConfig", "Timing"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one signaling server gives to its peers at most."""

    connections: int = 10_000
    """Open connections, authenticated or not."""
    connections_per_address: int = 2_000
    """Open connections from one IP address; many nodes may share one behind NAT."""
    messages_per_s: float = 500.0
    """Sustained messages of one connection; a faster peer is read no faster than this."""
    message_burst: int = 2_000
    """Messages of one connection that may come at once."""
    pending_bytes: int = 4 << 20
    """Bytes waiting to be sent on one connection; a peer that reads more slowly is dropped."""
    unauthenticated_frame_bytes: int = 4 << 10
    """Size of one message before a peer has proved its identity."""
    plan_bytes: int = 2 << 30
    """All blobs of one plan together."""
    store_bytes: int = 64 << 30
    """All blobs of all plans together, uploaded or announced."""
    plans_per_author: int = 1_000
    open_runs: int = 1_000
    """Runs that are waiting or running."""
    open_runs_per_author: int = 100
    ended_runs_in_memory: int = 256
    """Ended runs whose holders can still be asked for; the store keeps all."""
    introductions_per_peer: int = 16


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Durations in seconds."""

    authenticate_s: float = 10.0
    """From connecting to a valid answer to the challenge."""
    heartbeat_s: float = 15.0
    """Between two websocket pings; a peer that is silent for `heartbeat_timeout_s` after one is dropped."""
    heartbeat_timeout_s: float = 10.0
    gather_s: float = 2.0
    """How long a waiting run waits for more peers, once `min_cohort` are ready, before the first cohort is named."""
    settle_s: float = 0.5
    """How long a decided round waits for the other online members' reports before the next cohort is named."""
    join_s: float = 5.0
    """How long the next cohort waits for a late joiner that is fetching the model and for which there is room."""
    absence_s: float = 15.0
    """How long a member of an open cohort may be away before the signaling server counts it as failed."""
    introduction_s: float = 120.0
    close_s: float = 5.0
    """How long a connection's closing handshake may take."""


@dataclass(frozen=True, kw_only=True)
class SignalingConfig:
    """Settings of one signaling server.

    `folder` holds its identity, database and blobs (mode 0700). `certificate` and `private_key` are PEM files and
    turn TLS on. `audiences` are the `host:port` names under which peers reach this server; empty accepts any, which
    lets a go-between that peers dial by mistake pass their handshake on. `authors` limits who may publish; empty
    lets anybody. `port` 0 takes a free one.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8080
    name: str = "peerplan"
    certificate: Path | None = None
    private_key: Path | None = None
    audiences: tuple[str, ...] = ()
    authors: tuple[str, ...] = ()
    metrics: bool = True
    """Serve Prometheus metrics at /metrics."""
    page: Path = BUILT
    """The built page that is served at /join."""
    ice: IceServers = field(default_factory=IceServers)
    """STUN and TURN servers that the page is told of."""
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    """SQLite: FULL survives a power cut at the price of one fsync per round; NORMAL survives a killed process."""
    limits: Limits = Limits()
    timing: Timing = Timing()

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise ConfigError(
                f"TLS needs both files: certificate is {self.certificate}, private key is {self.private_key}"
            )
        for author in self.authors:
            parse_hex(author, what="authors")
