"""Who is at the other end (spec 03 §3): a challenge, its signed answer, and the signaling server's own proof.

    signaling server                                  peer
      | -- challenge(server, nonce) ------------------> |   the peer compares `server` with the id it pinned
      | <- authenticate(peer, nonce, audience, sig) --- |   signed: both nonces, both ids, the host it dialled
      | -- welcome(sig) ------------------------------> |   signed: the same transcript

A go-between that repeats an honest server's challenge gains nothing where the server checks `audience`: the peer
signed the host it dialled, which is the go-between's.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec

from protocol.encoding import Hex64, Name, parse_hex
from protocol.identity import Identity, verify
from protocol.signaling.base import Bytes32, Message, Signature

__all__ = [
    "AUTH_LABEL",
    "SEALING_LABEL",
    "WELCOME_LABEL",
    "Authenticate",
    "Challenge",
    "Error",
    "Welcome",
    "check_authenticate",
    "check_sealing_key",
    "check_welcome",
    "sign_authenticate",
    "sign_sealing_key",
    "sign_welcome",
]

AUTH_LABEL = "peerplan/1/auth"
WELCOME_LABEL = "peerplan/1/welcome"
SEALING_LABEL = "peerplan/1/sealing"

Audience = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
Versions = Annotated[tuple[int, ...], msgspec.Meta(min_length=1, max_length=16)]


class Challenge(Message, frozen=True, kw_only=True):
    """First message on a connection. `server` is the signaling server's Ed25519 key, `name` is for people."""

    versions: Versions
    nonce: Bytes32
    server: Hex64
    name: Name


class Authenticate(Message, frozen=True, kw_only=True):
    """The peer's answer. `audience` is the `host:port` it dialled, in lower case."""

    version: int
    peer: Hex64
    nonce: Bytes32
    audience: Audience
    signature: Signature


class Welcome(Message, frozen=True, kw_only=True):
    """The signaling server's proof that it holds the key it named; requests may follow."""

    signature: Signature


class Error(Message, frozen=True, kw_only=True):
    """A request that was refused (`re` set), or the reason why the connection is being closed (`re` absent).

    `code` is one of spec/errors.md; peers treat codes they do not know like `refused`.
    """

    re: int | None = None
    code: Annotated[str, msgspec.Meta(max_length=64)]
    message: Annotated[str, msgspec.Meta(max_length=2048)]


def _transcript(challenge: Challenge, *, version: int, peer: str, nonce: bytes, audience: str) -> bytes:
    # spec 03 §3.2: u32le version | server id | server nonce | peer id | peer nonce | SHA-256(audience)
    return b"".join(
        [
            version.to_bytes(4, "little"),
            parse_hex(challenge.server, what="signaling server id"),
            challenge.nonce,
            parse_hex(peer, what="peer id"),
            nonce,
            hashlib.sha256(audience.encode()).digest(),
        ]
    )


def _answered(challenge: Challenge, answer: Authenticate) -> bytes:
    return _transcript(
        challenge, version=answer.version, peer=answer.peer, nonce=answer.nonce, audience=answer.audience
    )


def sign_authenticate(
    identity: Identity, challenge: Challenge, *, version: int, nonce: bytes, audience: str
) -> Authenticate:
    """Answer a challenge; `nonce` is 32 fresh random bytes, `audience` the `host:port` that was dialled."""
    transcript = _transcript(challenge, version=version, peer=identity.peer_id, nonce=nonce, audience=audience)
    return Authenticate(
        version=version,
        peer=identity.peer_id,
        nonce=nonce,
        audience=audience,
        signature=identity.sign(AUTH_LABEL, transcript),
    )


def check_authenticate(challenge: Challenge, answer: Authenticate) -> None:
    """Check that `answer` is by the peer it names and answers this very challenge.

    Raises:
        SignatureError: it does not.
    """
    verify(answer.peer, AUTH_LABEL, _answered(challenge, answer), answer.signature)


def sign_welcome(identity: Identity, challenge: Challenge, answer: Authenticate) -> Welcome:
    """The signaling server's signature over the whole handshake."""
    return Welcome(signature=identity.sign(WELCOME_LABEL, _answered(challenge, answer)))


def check_welcome(challenge: Challenge, answer: Authenticate, welcome: Welcome) -> None:
    """Check that the signaling server holds the key its challenge named.

    Raises:
        SignatureError: it does not.
    """
    verify(challenge.server, WELCOME_LABEL, _answered(challenge, answer), welcome.signature)


def sign_sealing_key(identity: Identity, sealing_key: bytes) -> bytes:
    """Bind an X25519 public key (32 bytes) to an identity, so that no signaling server can swap it."""
    return identity.sign(SEALING_LABEL, sealing_key)


def check_sealing_key(peer: str, sealing_key: bytes, signature: bytes) -> None:
    """Check that `sealing_key` belongs to `peer`.

    Raises:
        SignatureError: the signature is not that peer's.
    """
    verify(peer, SEALING_LABEL, sealing_key, signature)
