"""HELLO: both sides prove again, inside the open channel, who they are and which certificates they see (spec 04 §4).

    sender id 32 | receiver id 32 | sender's fingerprint 32 | receiver's fingerprint 32
    | sender's nonce 16 | receiver's nonce 16 | Ed25519 signature 64 over "peerplan/1/hello" | all before it

The sender writes the fingerprint of its own certificate and the one that the DTLS transport *reports* for the other
side. If anybody ended the DTLS session in between, the two HELLOs cannot both agree with what their receivers see.
The nonces are those of the signed offer and answer, so a HELLO belongs to one link.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocol.encoding import Reader, Writer
from protocol.errors import LinkError
from protocol.identity import SIGNATURE_BYTES, Identity, PeerId, short, verify

__all__ = ["HELLO_BYTES", "HELLO_LABEL", "LinkIdentity", "seal_hello", "verify_hello"]

HELLO_LABEL: Final = "peerplan/1/hello"
HELLO_BYTES: Final = 4 * 32 + 2 * 16 + SIGNATURE_BYTES


@dataclass(frozen=True, kw_only=True)
class LinkIdentity:
    """One side's view of a link: who is at each end, with which certificate and nonce (hexadecimal)."""

    local: PeerId
    remote: PeerId
    local_fingerprint: str
    remote_fingerprint: str
    local_nonce: str
    remote_nonce: str

    def reversed(self) -> LinkIdentity:
        """The view the other side must have."""
        return LinkIdentity(
            local=self.remote,
            remote=self.local,
            local_fingerprint=self.remote_fingerprint,
            remote_fingerprint=self.local_fingerprint,
            local_nonce=self.remote_nonce,
            remote_nonce=self.local_nonce,
        )

    def statement(self) -> bytes:
        """What this side signs: 160 bytes."""
        writer = Writer()
        for text, size in self.fields().values():
            writer.raw(bytes.fromhex(text), size)
        return bytes(writer)

    def fields(self) -> dict[str, tuple[str, int]]:
        """Each field's name, hexadecimal value and size in bytes, in wire order."""
        return {
            "sender": (self.local, 32),
            "receiver": (self.remote, 32),
            "sender's fingerprint": (self.local_fingerprint, 32),
            "receiver's fingerprint": (self.remote_fingerprint, 32),
            "sender's nonce": (self.local_nonce, 16),
            "receiver's nonce": (self.remote_nonce, 16),
        }


def seal_hello(identity: Identity, view: LinkIdentity) -> bytes:
    """The HELLO this side sends: `HELLO_BYTES` bytes."""
    statement = view.statement()
    return statement + identity.sign(HELLO_LABEL, statement)


def verify_hello(payload: bytes, view: LinkIdentity) -> None:
    """Check the other side's HELLO against this side's view of the link.

    Raises:
        LinkError: a field differs (the first one is named), or the size is wrong.
        SignatureError: the other side did not sign it.
    """
    what = f"HELLO from {short(view.remote)} to {short(view.local)}"
    if len(payload) != HELLO_BYTES:
        raise LinkError(f"{what}: expected {HELLO_BYTES} bytes, got {len(payload)}")
    reader = Reader(payload, what=what)
    for name, (expected, size) in view.reversed().fields().items():
        got = reader.raw(size).hex()
        if got != expected:
            raise LinkError(f"{what}: {name} is {got[:16]}, this side sees {expected[:16]}")
    verify(view.remote, HELLO_LABEL, payload[:-SIGNATURE_BYTES], payload[-SIGNATURE_BYTES:])
