"""Ed25519 identities of peers and authors (spec 02 §1). A peer id is the public key in hexadecimal.

Signatures are libsodium's: it verifies in half of OpenSSL's time, which a round of 64 does 280 times, and refuses by
itself what the specification refuses. The vectors pin that rule, and no process runs with a libsodium that has
another one (ADR 0018).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NewType

import nacl
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey

from protocol.encoding import parse_hex
from protocol.errors import SignatureError

__all__ = ["SIGNATURE_BYTES", "Identity", "PeerId", "short", "verify"]

PeerId = NewType("PeerId", str)
"""An Ed25519 public key as 64 lower-case hexadecimal digits."""

SIGNATURE_BYTES = 64


def short(peer: str) -> str:
    """The first eight digits of a peer id, for people."""
    return peer[:8]


class Identity:
    """A long-term Ed25519 key pair. Its `repr` shows the public half alone."""

    __slots__ = ("_key", "peer_id", "public_key")

    def __init__(self, seed: bytes) -> None:
        """Take the 32 secret bytes of RFC 8032; they come from the operating system's generator."""
        if len(seed) != 32:
            raise SignatureError(f"an Ed25519 seed has 32 bytes, got {len(seed)}")
        self._key = SigningKey(seed)
        self.public_key = bytes(self._key.verify_key)
        self.peer_id = PeerId(self.public_key.hex())

    def __repr__(self) -> str:
        return f"Identity({short(self.peer_id)})"

    def __reduce__(self) -> str:
        raise TypeError("an identity cannot be pickled: its seed would be in the bytes")

    def sign(self, label: str, payload: bytes) -> bytes:
        """64-byte Ed25519 signature over `label | payload`; no label begins another, which keeps uses apart."""
        return self._key.sign(label.encode("ascii") + payload).signature

    def seed(self) -> bytes:
        """The 32 secret bytes, for storing in a file with mode 0600 and nothing else."""
        return bytes(self._key)


def verify(peer: str, label: str, payload: bytes, signature: bytes) -> None:
    """Check an Ed25519 signature over `label | payload` by `peer`.

    Raises:
        EncodingError: `peer` is no peer id.
        SignatureError: the signature is not that peer's.
    """
    key = _public_key(peer)
    if len(signature) != SIGNATURE_BYTES:
        raise SignatureError(f"{label}: signature of {len(signature)} bytes, expected {SIGNATURE_BYTES}")
    try:
        crypto_sign_open(signature + label.encode("ascii") + payload, key)
    except BadSignatureError:
        raise SignatureError(f"{label}: signature is not by {short(peer)}") from None


@lru_cache(maxsize=1024)
def _public_key(peer: str) -> bytes:
    return parse_hex(peer, what="peer id")


_BASE = "58" + "66" * 31
_WRONG = {
    "that only the equation times the cofactor allows": (
        _BASE,
        (
            "98519eadf35b995233b51b5cd23e9cc5a28b639b5a4af0ec903cb960d81b7819"
            "fd13cd52ad7f2d0665cf991059cd7a5d7b48c5cb5794f9ac3fbe47f7cf629001"
        ),
    ),
    "whose S is not below the order": (
        _BASE,
        _BASE + "576431b7988737166aa2584bf90acd495b2dd7f3249d4c1a64bbfcf5bc16ad16",
    ),
    "by a key of small order": ("01" + "00" * 31, _BASE + "01" + "00" * 31),
}
"""Key and signature of nothing, of each kind that some build or release of libsodium takes."""


def _check_library() -> None:
    """Peers that judge one signature differently would blame each other: such a library stops the process at once.

    Raises:
        ImportError: libsodium takes a signature that spec 02 §1 refuses.
    """
    for what, (key, signature) in _WRONG.items():
        try:
            crypto_sign_open(bytes.fromhex(signature), bytes.fromhex(key))
        except BadSignatureError:
            continue
        raise ImportError(
            f"PyNaCl {nacl.__version__} has a libsodium that takes a signature {what}, expected to be refused "
            f"(spec 02 §1): pip install 'pynacl>=1.6,<1.7', whose wheels bring another"
        )


_check_library()
