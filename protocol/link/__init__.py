"""Links between two peers, sans-I/O: signed negotiation, HELLO, and messages in frames (spec 04)."""

from protocol.link.framing import (
    CONTROL_MAX_BYTES,
    FRAME_MAX_BYTES,
    FrameDecoder,
    FrameEncoder,
    Limits,
    Message,
    MessageKind,
    OutgoingMessage,
    Payload,
)
from protocol.link.hello import LinkIdentity, seal_hello, verify_hello
from protocol.link.negotiation import (
    Negotiation,
    NegotiationKind,
    ReplayGuard,
    fingerprint_in,
    only_sha256,
    open_negotiation,
    seal_negotiation,
)

__all__ = [
    "CONTROL_MAX_BYTES",
    "FRAME_MAX_BYTES",
    "FrameDecoder",
    "FrameEncoder",
    "Limits",
    "LinkIdentity",
    "Message",
    "MessageKind",
    "Negotiation",
    "NegotiationKind",
    "OutgoingMessage",
    "Payload",
    "ReplayGuard",
    "fingerprint_in",
    "only_sha256",
    "open_negotiation",
    "seal_hello",
    "seal_negotiation",
    "verify_hello",
]
