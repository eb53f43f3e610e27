"""Keys of one round (spec 07 §2): X25519 pairs, HKDF derivations and the boxes that carry shares."""

from __future__ import annotations

import hashlib
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocol.errors import RoundError
from protocol.secagg.shamir import SECRET_BYTES

__all__ = [
    "SECRETS_BYTES",
    "SHARE_BOX_BYTES",
    "RoundSecrets",
    "agree",
    "close_share_box",
    "mask_key",
    "open_share_box",
    "private_key",
    "public_key_of",
    "seed_commitment",
    "self_key",
    "share_key",
]

SECRETS_BYTES = 3 * SECRET_BYTES
"""Random bytes that `RoundSecrets` takes."""

SHARE_BOX_BYTES = 1 + 2 * SECRET_BYTES + 16

_NONCE = bytes(12)  # each key is directional and boxes one message


class RoundSecrets:
    """A peer's secrets of one attempt: two X25519 private keys and the self-mask seed. `repr` shows none of them."""

    __slots__ = ("_enc_key", "_mask_key", "enc_public", "mask_private", "mask_public", "self_mask_seed")

    def __init__(self, randomness: bytes) -> None:
        """Take 96 bytes of the operating system's randomness: mask key, enc key, self-mask seed."""
        if len(randomness) != SECRETS_BYTES:
            raise RoundError(f"round secrets take {SECRETS_BYTES} random bytes, got {len(randomness)}")
        self.mask_private = randomness[:32]
        self.self_mask_seed = randomness[64:]
        mask_key_pair, enc_key_pair = private_key(self.mask_private), private_key(randomness[32:64])
        self._mask_key: X25519PrivateKey | None = mask_key_pair
        self._enc_key: X25519PrivateKey | None = enc_key_pair
        self.mask_public = _public_bytes(mask_key_pair)
        self.enc_public = _public_bytes(enc_key_pair)

    def __repr__(self) -> str:
        return "RoundSecrets()"

    def agree_with(self, mask_public: bytes, enc_public: bytes, other: int) -> tuple[bytes, bytes]:
        """Shared secrets with another peer: of the mask keys and of the enc keys.

        Raises:
            RoundError: a key of small order, or the secrets are forgotten.
        """
        if self._mask_key is None or self._enc_key is None:
            raise RoundError("the secrets of this attempt are forgotten")
        return agree(self._mask_key, mask_public, other), agree(self._enc_key, enc_public, other)

    def forget(self) -> None:
        """Drop every private part; the public keys stay."""
        self.mask_private = self.self_mask_seed = b""
        self._mask_key = self._enc_key = None


def private_key(private: bytes) -> X25519PrivateKey:
    """An X25519 private key of 32 raw bytes, ready for many agreements."""
    return X25519PrivateKey.from_private_bytes(private)


def agree(private: X25519PrivateKey, public: bytes, other: int) -> bytes:
    """X25519 shared secret (RFC 7748); `other` names the far side in errors.

    Raises:
        RoundError: the result is all zero: the public key is of small order.
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # the library refuses an all-zero shared secret
        raise RoundError(f"peer {other} advertised an X25519 key of small order") from None


def public_key_of(private: bytes) -> bytes:
    """X25519 public key of 32 private bytes (RFC 7748)."""
    return _public_bytes(private_key(private))


def seed_commitment(self_mask_seed: bytes) -> bytes:
    """What an advert says of a self-mask seed."""
    return hashlib.sha256(b"p2psa/1/b" + self_mask_seed).digest()


def mask_key(t1: bytes, shared: bytes, own: int, other: int) -> bytes:
    """Key of the mask that two peers share, from the shared secret of their mask keys; both get the same."""
    return _derive(shared, t1, b"p2psa/1/mask" + struct.pack("<HH", min(own, other), max(own, other)))


def self_key(t1: bytes, self_mask_seed: bytes, peer: int) -> bytes:
    """Key of a peer's self-mask."""
    return _derive(self_mask_seed, t1, b"p2psa/1/self" + struct.pack("<H", peer))


def share_key(t1: bytes, shared: bytes, *, sender: int, receiver: int) -> bytes:
    """Key of the share box from `sender` to `receiver`, from the shared secret of their enc keys."""
    return _derive(shared, t1, b"p2psa/1/share" + struct.pack("<HH", sender, receiver))


def close_share_box(
    key: bytes, t1: bytes, *, sender: int, receiver: int, seed_share: bytes, key_share: bytes
) -> bytes:
    """Encrypt the two shares meant for `receiver`."""
    plain = bytes([receiver + 1]) + seed_share + key_share
    return AESGCM(key).encrypt(_NONCE, plain, t1 + struct.pack("<HH", sender, receiver))


def open_share_box(key: bytes, t1: bytes, *, sender: int, receiver: int, box: bytes) -> tuple[bytes, bytes]:
    """Decrypt `close_share_box`: the share of b and the share of the mask key.

    Raises:
        RoundError: the box does not decrypt, or carries the share of another point.
    """
    try:
        plain = AESGCM(key).decrypt(_NONCE, box, t1 + struct.pack("<HH", sender, receiver))
    except InvalidTag:
        raise RoundError(f"share box from peer {sender} to peer {receiver} does not decrypt") from None
    if len(plain) != 1 + 2 * SECRET_BYTES or plain[0] != receiver + 1:
        raise RoundError(f"share box from peer {sender} holds another share than that of peer {receiver}")
    return plain[1:33], plain[33:]


def _public_bytes(private: X25519PrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, info).derive(secret)
