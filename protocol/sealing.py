"""Boxes that only one peer opens (spec 02 §3): what signaling relays says nothing to who runs it.

box = ephemeral X25519 public key (32) | AES-256-GCM(key, nonce 0^12, kind | payload)
key = HKDF-SHA256(X25519(ephemeral, recipient), salt "peerplan/1/seal", info = ephemeral | recipient | from | to)
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocol.encoding import parse_hex
from protocol.errors import EncodingError, SignatureError
from protocol.identity import short

__all__ = ["SealingKey", "seal"]

_NONCE = bytes(12)  # every box has a key of its own
_KINDS = {"offer": 1, "answer": 2, "candidate": 3}
_NAMES = {number: name for name, number in _KINDS.items()}


class SealingKey:
    """A peer's X25519 key for boxes, fresh for each process. `repr` shows nothing of it."""

    __slots__ = ("_private", "public")

    def __init__(self, randomness: bytes) -> None:
        """Take 32 bytes of the operating system's randomness."""
        self._private = X25519PrivateKey.from_private_bytes(randomness)
        self.public = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def open(self, box: bytes, *, sender: str, receiver: str) -> tuple[str, bytes]:
        """The kind of negotiation document in a box, and its bytes.

        Raises:
            EncodingError: it is too short, or of a kind that does not exist.
            SignatureError: it was not sealed by `sender` for this key.
        """
        if len(box) < 32 + 1 + 16:
            raise EncodingError(f"sealed box from {short(sender)} has {len(box)} bytes, expected 49 at least")
        ephemeral = box[:32]
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(ephemeral))
            plain = AESGCM(_key(shared, ephemeral, self.public, sender, receiver)).decrypt(_NONCE, box[32:], None)
        except (InvalidTag, ValueError):
            raise SignatureError(f"sealed box from {short(sender)} does not open with this peer's key") from None
        kind = _NAMES.get(plain[0])
        if kind is None:
            raise EncodingError(f"sealed box from {short(sender)} holds a document of unknown kind {plain[0]}")
        return kind, plain[1:]


def seal(recipient: bytes, kind: str, payload: bytes, *, sender: str, receiver: str, randomness: bytes) -> bytes:
    """A box for the holder of `recipient` (32 bytes); `randomness` is 32 fresh bytes.

    Raises:
        SignatureError: the recipient's key is of small order.
    """
    private = X25519PrivateKey.from_private_bytes(randomness)
    ephemeral = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(recipient))
    except ValueError:
        raise SignatureError(f"the sealing key of {short(receiver)} is of small order") from None
    plain = bytes([_KINDS[kind]]) + payload
    return ephemeral + AESGCM(_key(shared, ephemeral, recipient, sender, receiver)).encrypt(_NONCE, plain, None)


def _key(shared: bytes, ephemeral: bytes, recipient: bytes, sender: str, receiver: str) -> bytes:
    info = ephemeral + recipient + parse_hex(sender, what="sender") + parse_hex(receiver, what="receiver")
    return HKDF(SHA256(), 32, b"peerplan/1/seal", info).derive(shared)
