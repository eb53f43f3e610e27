"""What each signature covers (spec 07 §3 and §9); Ed25519 by the sender's identity."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from spec.reference.codec import H, bits, u16
from spec.reference.curve import is_canonical, is_small
from spec.reference.messages import SIGNED, Decoded, encode
from spec.reference.refused import Refused

__all__ = ["identity_key", "sign", "sign_bytes", "sign_sum", "signed_bytes", "sum_signed_bytes", "verify"]


def identity_key(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign_bytes(seed: bytes, covered: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(covered)


def signed_bytes(message: Decoded, round_id: bytes, t0: bytes) -> bytes:
    """All that the signature at the end of a message covers."""
    name: str = message["type"]
    if name not in SIGNED:
        raise Refused("unsigned-type", "07 §3", f"{name} carries no signature at its end")
    if name == "result":
        model, tail = bytes.fromhex(message["model"]), bytes.fromhex(message["tail"])
        return b"peerplan/1/result" + round_id + model + bits(message["survivors"]) + tail
    bare = {key: value for key, value in message.items() if key != "signature"}
    return b"p2psa/1/" + name.encode("ascii") + t0 + encode(bare, round_id)


def sum_signed_bytes(t0: bytes, t3: bytes, chunk: int, packed: bytes) -> bytes:
    """All that the signature of a SUM covers."""
    return b"p2psa/1/sum" + t0 + t3 + u16(chunk) + H(packed)


def sign(message: Decoded, seed: bytes, round_id: bytes, t0: bytes) -> Decoded:
    """The message with its signature at the end."""
    signature = sign_bytes(seed, signed_bytes(message, round_id, t0))
    return message | {"signature": signature.hex()}


def sign_sum(message: Decoded, seed: bytes, t0: bytes, t3: bytes) -> Decoded:
    """A SUM with its signature."""
    covered = sum_signed_bytes(t0, t3, message["chunk"], bytes.fromhex(message["packed"]))
    return message | {"signature": sign_bytes(seed, covered).hex()}


def verify(identity: bytes, signature: bytes, covered: bytes) -> None:
    """The rule of spec 02 §1: OpenSSL compares R byte for byte, but takes small orders and second encodings."""
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, covered)
    except (InvalidSignature, ValueError):
        raise Refused("signature", "07 §3", f"not signed by {identity.hex()[:8]}") from None
    if not is_canonical(identity) or is_small(identity) or is_small(signature[:32]):
        raise Refused("signature", "02 §1", "a key or R of small order, or a second encoding of a key")
