"""Settings of a mesh, every one with its unit."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["IceServer", "MeshConfig"]


@dataclass(frozen=True, kw_only=True)
class IceServer:
    """A STUN or TURN server: `urls` as in WebRTC ("stun:host:port", "turn:host:port?transport=udp", "turns:...")."""

    urls: tuple[str, ...]
    username: str | None = None
    credential: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Times in seconds, sizes in bytes. The defaults suit a LAN and the internet alike."""

    link_timeout_s: float = 15.0
    """How long one attempt at a link may take, signaling included."""
    offer_grace_s: float = 0.5
    """How long the peer with the higher id waits for the other's offer before it offers itself."""
    backoff_first_s: float = 0.25
    backoff_max_s: float = 8.0
    """Waiting between attempts doubles from the first to the last, with jitter."""
    reconnect_for_s: float = 60.0
    """How long a lost or never made link is retried before the mesh gives up until the next `connect`."""
    ping_after_s: float = 0.75
    """A link that was silent for so long is asked for a sign of life."""
    gone_after_s: float = 2.5
    """A link that was silent for so long is dead where signaling lost the peer too. Time in which this process did
    not run does not count, here and below."""
    dead_after_s: float = 7.0
    """A link that was silent for so long is dead: until then its peer may only be slow. Peers that wait in a round
    for what a dead leader sent to some give up after 10 s; before that another must have taken its place."""
    close_timeout_s: float = 0.5
    """How long closing waits for what is still buffered."""
    queue_bytes: int = 128 << 20
    """How many bytes may wait for one peer."""
    queue_messages: int = 1 << 16
    """How many messages may wait for one peer."""
    channel_high_bytes: int = 256 << 10
    """The data channel is fed until so many bytes are buffered in it."""
    channel_low_bytes: int = 128 << 10
    """It is fed again when no more than so many are left; a vote waits behind these bytes at most."""
    model_message_bytes: int = 1 << 20
    """The largest message of the model class that is accepted."""
    max_links: int = 256
    """How many peers may be linked or linking at a time."""
    max_waiting_signals: int = 64
    """How many negotiation documents of one peer may wait to be handled."""
    fast_sctp: bool = True
    """Use the faster SCTP and DTLS transports where the version of aiortc is a known one (docs/transport.md)."""
