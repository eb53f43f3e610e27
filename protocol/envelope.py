"""DSSE envelopes (spec 02 §2): a signature over the exact bytes of a document, so nothing is canonicalised.

Source: https://github.com/secure-systems-lab/dsse, protocol version 1.0.2.
"""

from __future__ import annotations

import msgspec

from protocol.encoding import Digest, Hex64, decode_json, digest_of, encode_json
from protocol.errors import SignatureError
from protocol.identity import Identity, PeerId, short, verify

__all__ = ["PLAN_TYPE", "RUN_TYPE", "Envelope", "Opened", "open_envelope", "seal_envelope"]

PLAN_TYPE = "application/vnd.peerplan.plan+json"
RUN_TYPE = "application/vnd.peerplan.run+json"


class EnvelopeSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signature: `keyid` is the signer's peer id."""

    keyid: Hex64
    sig: bytes


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """DSSE envelope with exactly one signature."""

    payload_type: str = msgspec.field(name="payloadType")
    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]


class Opened(msgspec.Struct, frozen=True):
    """A verified payload: its exact bytes, their digest, and who signed them."""

    payload: bytes
    digest: Digest
    signer: PeerId


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """DSSE PAE: what is signed."""
    kind = payload_type.encode()
    return b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])


def seal_envelope(identity: Identity, payload_type: str, payload: bytes) -> bytes:
    """Sign `payload` and give the envelope's JSON bytes."""
    signature = identity.sign("", pre_authentication_encoding(payload_type, payload))
    return encode_json(
        Envelope(
            payload_type=payload_type,
            payload=payload,
            signatures=(EnvelopeSignature(keyid=identity.peer_id, sig=signature),),
        )
    )


def open_envelope(data: bytes, payload_type: str, *, what: str, max_bytes: int = 4 << 20) -> Opened:
    """Verify an envelope of the given type; who the signer may be is the caller's decision.

    Raises:
        LimitExceededError, EncodingError: the bytes are no envelope.
        SignatureError: wrong payload type, not exactly one signature, or one that does not verify.
    """
    envelope = decode_json(data, Envelope, what=what, max_bytes=max_bytes)
    if envelope.payload_type != payload_type:
        raise SignatureError(f"{what}: payload type is {envelope.payload_type[:80]!r}, expected {payload_type!r}")
    if len(envelope.signatures) != 1:
        raise SignatureError(f"{what}: expected exactly 1 signature, got {len(envelope.signatures)}")
    signature = envelope.signatures[0]
    try:
        verify(signature.keyid, "", pre_authentication_encoding(payload_type, envelope.payload), signature.sig)
    except SignatureError:
        raise SignatureError(f"{what}: the signature is not by {short(signature.keyid)}") from None
    return Opened(payload=envelope.payload, digest=digest_of(envelope.payload), signer=PeerId(signature.keyid))
