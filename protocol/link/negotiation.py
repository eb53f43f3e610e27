"""Signed negotiation documents (spec 04 §2): offer, answer and candidate, which a signaling server relays unread.

The signature covers the whole session description and, apart, the SHA-256 fingerprint of the DTLS certificate in it.
A server in the middle can therefore drop a document or deliver it late, and nothing else. Replays are refused: a
document's sequence number is above every one seen from that peer, its time is near the receiver's, and an answer or
a candidate names the nonce of the attempt it belongs to.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Annotated, Final, Literal

import msgspec

from protocol.encoding import Hex64, decode_json, encode_json
from protocol.errors import LinkError, ProtocolError
from protocol.identity import Identity, PeerId, short, verify

__all__ = [
    "DOCUMENT_MAX_BYTES",
    "MAX_SKEW_MS",
    "NEGOTIATION_LABEL",
    "Negotiation",
    "NegotiationKind",
    "ReplayGuard",
    "fingerprint_in",
    "only_sha256",
    "open_negotiation",
    "seal_negotiation",
]

NEGOTIATION_LABEL: Final = "peerplan/1/negotiation"
DOCUMENT_MAX_BYTES: Final = 32768
"""The largest signed document, in bytes of JSON."""
MAX_SKEW_MS: Final = 600_000
"""How far the sender's clock may be from the receiver's, transport included: ten minutes."""
_BODY_MAX_CHARS: Final = 16384

NegotiationKind = Literal["offer", "answer", "candidate"]
Nonce = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
_FINGERPRINT: Final = "a=fingerprint:"


class Negotiation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One step of making a link.

    `nonce` is the sender's for this attempt. `reply_to` is the other side's nonce: empty in an offer, given in an
    answer, and empty in a candidate sent before the answer came. `sequence` is milliseconds since 1970 by the
    sender's clock, raised where needed so that it always grows. `body` is a session description for an offer or an
    answer, and for a candidate one candidate line ("candidate:..."), or "" after the last.
    """

    kind: NegotiationKind
    sender: Hex64 = msgspec.field(name="from")
    receiver: Hex64 = msgspec.field(name="to")
    nonce: Nonce
    reply_to: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{32})?$")] = ""
    sequence: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
    fingerprint: Hex64
    body: Annotated[str, msgspec.Meta(max_length=_BODY_MAX_CHARS)]


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The exact bytes of a `Negotiation` and the sender's signature over them."""

    document: bytes
    signature: bytes


def fingerprint_in(sdp: str) -> str:
    """The SHA-256 certificate fingerprint of a session description, as 64 lower-case hexadecimal digits.

    Raises:
        LinkError: it has none, names another hash, or has two that differ.
    """
    found = set()
    for line in sdp.splitlines():
        if not line.startswith(_FINGERPRINT):
            continue
        algorithm, _, value = line.removeprefix(_FINGERPRINT).partition(" ")
        if algorithm.lower() != "sha-256":
            raise LinkError(f"session description: fingerprints are sha-256 only, got {algorithm[:20]!r}")
        digits = value.strip().replace(":", "").lower()
        if not re.fullmatch(r"[0-9a-f]{64}", digits):
            raise LinkError(f"session description: expected 32 bytes of fingerprint, got {value[:100]!r}")
        found.add(digits)
    if len(found) != 1:
        raise LinkError(f"session description: expected exactly 1 certificate fingerprint, got {len(found)}")
    return str(found.pop())


def _check_media(sdp: str) -> None:
    """One data-channel section and nothing else: no peer makes another one set up audio or video."""
    media = [line for line in sdp.splitlines() if line.startswith("m=")]
    if len(media) != 1 or not media[0].startswith("m=application "):
        raise LinkError(
            f"session description: expected 1 section of m=application, got {[x[:20] for x in media[:4]]}"
        )


def only_sha256(sdp: str) -> str:
    """The session description without fingerprints of other hashes, which no side would check."""
    lines = sdp.splitlines(keepends=True)
    return "".join(
        x for x in lines if not x.startswith("a=fingerprint:") or x.lower().startswith("a=fingerprint:sha-256")
    )


def seal_negotiation(identity: Identity, document: Negotiation) -> bytes:
    """Sign a document of one's own and give the bytes to relay."""
    payload = encode_json(document)
    return encode_json(_Signed(document=payload, signature=identity.sign(NEGOTIATION_LABEL, payload)))


def open_negotiation(data: bytes, *, sender: str, receiver: str, kind: str) -> Negotiation:
    """Verify a document that was relayed as `kind` from `sender` to `receiver` (oneself).

    Raises:
        LimitExceededError, EncodingError: the bytes are no such document.
        SignatureError: `sender` did not sign it.
        LinkError: it is for somebody else, of another kind, or its fingerprint is not that of its description.
    """
    what = f"link {kind} from {short(sender)} to {short(receiver)}"
    signed = decode_json(data, _Signed, what=what, max_bytes=DOCUMENT_MAX_BYTES)
    verify(sender, NEGOTIATION_LABEL, signed.document, signed.signature)
    document = decode_json(signed.document, Negotiation, what=what, max_bytes=DOCUMENT_MAX_BYTES)
    if document.sender != sender or document.receiver != receiver:
        raise LinkError(f"{what}: written from {short(document.sender)} to {short(document.receiver)}")
    if document.kind != kind:
        raise LinkError(f"{what}: relayed as {kind!r}, signed as {document.kind!r}")
    if document.kind != "candidate" and (document.kind == "offer") != (document.reply_to == ""):
        raise LinkError(f"{what}: an offer replies to no nonce, an answer to one, got {document.reply_to!r}")
    if document.kind != "candidate":
        try:
            _check_media(document.body)
            found = fingerprint_in(document.body)
        except ProtocolError as error:
            raise LinkError(f"{what}: {error}") from None
        if found != document.fingerprint:
            raise LinkError(
                f"{what}: signed fingerprint {document.fingerprint[:16]}, its description has {found[:16]}"
            )
    return document


class ReplayGuard:
    """Refuse documents that are old: at most `max_peers` peers are remembered, the longest silent are forgotten."""

    def __init__(self, *, max_peers: int = 4096, max_skew_ms: int = MAX_SKEW_MS) -> None:
        self._seen: OrderedDict[PeerId, int] = OrderedDict()
        self._max_peers = max_peers
        self._max_skew_ms = max_skew_ms

    def admit(self, document: Negotiation, *, now_ms: int) -> None:
        """Take note of a verified document.

        Raises:
            LinkError: its sequence is not above the last one of its sender, or its time is too far from `now_ms`.
        """
        what = f"link {document.kind} from {short(document.sender)} to {short(document.receiver)}"
        skew = document.sequence - now_ms
        if abs(skew) > self._max_skew_ms:
            raise LinkError(
                f"{what}: sent {skew / 1000:+.0f} s from now, at most {self._max_skew_ms // 1000} s is accepted"
            )
        peer = PeerId(document.sender)
        seen = self._seen.get(peer)
        if seen is not None and document.sequence <= seen:
            raise LinkError(f"{what}: replayed, its sequence {document.sequence} is not above {seen}")
        self._seen[peer] = document.sequence
        self._seen.move_to_end(peer)
        if len(self._seen) > self._max_peers:
            self._seen.popitem(last=False)
