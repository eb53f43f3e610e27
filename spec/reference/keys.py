"""Key schedule of a round (spec 07 §2): X25519, then HKDF-SHA256 with salt T1."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from spec.reference.codec import u8, u16
from spec.reference.refused import Refused

__all__ = [
    "hkdf_sha256",
    "mask_key",
    "open_share",
    "public_key",
    "seal_share",
    "self_mask_key",
    "share_key",
    "x25519",
]


def public_key(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def x25519(private: bytes, public: bytes) -> bytes:
    """The shared secret; one that is all zero is refused (the other key is a point of low order)."""
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise Refused("zero-shared-secret", "07 §2", "the X25519 shared secret is all zero") from None


def hkdf_sha256(secret: bytes, *, salt: bytes, info: bytes, size: int = 32) -> bytes:
    """RFC 5869 §2: extract, then expand."""
    extracted = hmac.digest(salt or bytes(32), secret, hashlib.sha256)
    out = block = b""
    counter = 1
    while len(out) < size:
        block = hmac.digest(extracted, block + info + u8(counter), hashlib.sha256)
        out += block
        counter += 1
    return out[:size]


def mask_key(t1: bytes, own_private: bytes, other_public: bytes, i: int, j: int) -> bytes:
    """k_mask(i,j): the same for both peers."""
    info = b"p2psa/1/mask" + u16(min(i, j)) + u16(max(i, j))
    return hkdf_sha256(x25519(own_private, other_public), salt=t1, info=info)


def self_mask_key(t1: bytes, seed: bytes, u: int) -> bytes:
    """k_self(u)."""
    return hkdf_sha256(seed, salt=t1, info=b"p2psa/1/self" + u16(u))


def share_key(t1: bytes, own_private: bytes, other_public: bytes, sender: int, receiver: int) -> bytes:
    """k_share(f,g): one key per direction."""
    info = b"p2psa/1/share" + u16(sender) + u16(receiver)
    return hkdf_sha256(x25519(own_private, other_public), salt=t1, info=info)


def seal_share(t1: bytes, key: bytes, f: int, g: int, share_of_b: bytes, share_of_sk: bytes) -> bytes:
    """The box of a SHARE (spec 07 §5): 81 bytes; the nonce is zero because each key is used once."""
    return AESGCM(key).encrypt(bytes(12), u8(g + 1) + share_of_b + share_of_sk, t1 + u16(f) + u16(g))


def open_share(t1: bytes, key: bytes, f: int, g: int, box: bytes) -> tuple[bytes, bytes]:
    """Share of b and share of sk_mask that f sealed for g."""
    try:
        plain = AESGCM(key).decrypt(bytes(12), box, t1 + u16(f) + u16(g))
    except InvalidTag:
        raise Refused("share-box", "07 §5", f"the box of {f} for {g} does not open") from None
    if plain[0] != g + 1:
        raise Refused("share-x", "07 §5", f"expected x = {g + 1}, got {plain[0]}")
    return plain[1:33], plain[33:65]
