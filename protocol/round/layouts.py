"""Bytes of the messages of p2psa/1 (spec 07 §3): fixed little-endian layouts, lengths checked before use."""

from __future__ import annotations

import struct
from collections.abc import Callable

from protocol.encoding import Reader, Writer
from protocol.identity import SIGNATURE_BYTES
from protocol.round.errors import MessageError
from protocol.round.messages import (
    DIGEST_BYTES,
    HEADER_BYTES,
    Abort,
    Ack,
    Advert,
    Assign,
    Certificate,
    Chunk,
    Commit,
    Decide,
    Forward,
    Have,
    Kind,
    Message,
    Need,
    Result,
    Reveal,
    Share,
    Status,
    Sum,
    Vote,
)
from protocol.secagg.keys import SHARE_BOX_BYTES
from protocol.terms import MAX_COHORT

__all__ = ["DECODERS", "ENCODERS", "FORWARDED", "MAX_CONTROL_BYTES", "NUMBERS", "TYPES"]

MAX_CONTROL_BYTES = 65_536

_ADVERT = struct.Struct("<32s32s32s32s32s")
_DECIDE = struct.Struct("<BB32sQ32s")
_ACK = struct.Struct("<BQ")
_CHUNK_HELD = struct.Struct("<HQ")
_VOTE = struct.Struct("<32sQ32s")
_CERTIFICATE = struct.Struct("<32sQ32sQ")
_SHARE = struct.Struct("<HB32s")
_RESULT = struct.Struct("<32s32sQ64s")
_NEED = struct.Struct("<BQ")
_ASSIGN = struct.Struct("<BHH")
_SUM = struct.Struct("<H64s")


def _count(reader: Reader, limit: int, size: int = 2) -> int:
    count = reader.uint(size)
    if count > limit:
        raise MessageError(f"round message lists {count} items, at most {limit} are accepted")
    return count


def _encode_advert(m: Advert, w: Writer) -> None:
    for part in (m.t0, m.mask_public, m.enc_public, m.seed_commitment, m.fingerprint):
        w.raw(part, 32)


def _encode_decide(m: Decide, w: Writer) -> None:
    w.uint(m.kind, 1).uint(m.view, 1).raw(m.base, 32).uint(m.members, 8).raw(m.root, 32)


def _encode_commit(m: Commit, w: Writer) -> None:
    w.raw(m.t2, 32).uint(m.count, 2).raw(m.digests, DIGEST_BYTES * m.count)


def _encode_have(m: Have, w: Writer) -> None:
    w.uint(m.view, 1).uint(m.commits, 8).uint(len(m.chunks), 2)
    for chunk, held in m.chunks:
        w.uint(chunk, 2).uint(held, 8)


def _encode_certificate(m: Certificate, w: Writer) -> None:
    w.raw(m.t2, 32).uint(m.survivors, 8).raw(m.root, 32).uint(m.voters, 8)
    for signature in m.signatures:
        w.raw(signature, SIGNATURE_BYTES)


def _encode_reveal(m: Reveal, w: Writer) -> None:
    w.uint(int(m.seed is not None), 1)
    if m.seed is not None:
        w.raw(m.seed, 32)
    w.uint(len(m.shares), 2)
    for about, kind, share in m.shares:
        w.uint(about, 2).uint(kind, 1).raw(share, 32)


def _encode_status(m: Status, w: Writer) -> None:
    w.uint(m.view, 1).uint(len(m.decisions), 1)
    for decision in m.decisions:
        w.uint(len(decision), 2).raw(decision)


def _decode_decide(r: Reader) -> Decide:
    kind, view, base, members, root = r.unpack(_DECIDE)
    if not Kind.ROSTER <= kind <= Kind.LOST:
        raise MessageError(f"Decide: kind {kind} is unknown")
    return Decide(kind, view, base, members, root)


def _decode_certificate(r: Reader) -> Certificate:
    t2, survivors, root, voters = r.unpack(_CERTIFICATE)
    signatures = tuple(r.raw(SIGNATURE_BYTES) for _ in range(voters.bit_count()))
    return Certificate(t2, survivors, root, voters, signatures)


def _decode_need(r: Reader) -> Need:
    what, members = r.unpack(_NEED)
    if not Kind.ADVERTS <= what <= Kind.CERTIFICATE:
        raise MessageError(f"Need: {what} is unknown")
    return Need(what, members)


def _decode_reveal(r: Reader) -> Reveal:
    has_seed = r.uint(1)
    if has_seed > 1:
        raise MessageError(f"Reveal: flag {has_seed}, expected 0 or 1")
    seed = r.raw(32) if has_seed else None
    shares = []
    for _ in range(_count(r, MAX_COHORT)):
        about, kind, share = r.unpack(_SHARE)
        if kind not in (Kind.SEED, Kind.MASK_KEY):
            raise MessageError(f"Reveal: share of kind {kind} is unknown")
        shares.append((about, kind, share))
    return Reveal(seed, tuple(shares))


def _decode_sum(r: Reader) -> Sum:
    chunk, signature = r.unpack(_SUM)
    return Sum(chunk, signature, r.view(r.remaining))


# One row per type: number, class, encoder, decoder, in the order of spec 07 §3.
_LAYOUTS: list[tuple[int, type, Callable[..., object], Callable[[Reader], Message]]] = [
    (1, Advert, _encode_advert, lambda r: Advert(*r.unpack(_ADVERT))),
    (2, Decide, _encode_decide, _decode_decide),
    (3, Share, lambda m, w: w.raw(m.box, SHARE_BOX_BYTES), lambda r: Share(r.raw(SHARE_BOX_BYTES))),
    (4, Ack, lambda m, w: w.uint(m.view, 1).uint(m.held, 8), lambda r: Ack(*r.unpack(_ACK))),
    (
        5,
        Commit,
        _encode_commit,
        lambda r: Commit(r.raw(32), r.raw(DIGEST_BYTES * _count(r, MAX_COHORT))),
    ),
    (
        6,
        Have,
        _encode_have,
        lambda r: Have(r.uint(1), r.uint(8), tuple(r.unpack(_CHUNK_HELD) for _ in range(_count(r, MAX_COHORT)))),
    ),
    (
        7,
        Vote,
        lambda m, w: w.raw(m.t2, 32).uint(m.survivors, 8).raw(m.root, 32),
        lambda r: Vote(*r.unpack(_VOTE)),
    ),
    (8, Certificate, _encode_certificate, _decode_certificate),
    (9, Reveal, _encode_reveal, _decode_reveal),
    (
        10,
        Result,
        lambda m, w: w.raw(m.model_digest, 32).raw(m.tail_digest, 32).uint(m.survivors, 8).raw(m.signature, 64),
        lambda r: Result(*r.unpack(_RESULT)),
    ),
    (
        11,
        Status,
        _encode_status,
        lambda r: Status(r.uint(1), tuple(r.raw(_count(r, 512)) for _ in range(_count(r, Kind.LOST, 1)))),
    ),
    (
        12,
        Forward,
        lambda m, w: w.uint(len(m.message), 2).raw(m.message),
        lambda r: Forward(r.raw(_count(r, MAX_CONTROL_BYTES - HEADER_BYTES - 2))),
    ),
    (13, Need, lambda m, w: w.uint(m.what, 1).uint(m.members, 8), _decode_need),
    (
        14,
        Assign,
        lambda m, w: w.uint(m.view, 1).uint(m.chunk, 2).uint(m.owner, 2),
        lambda r: Assign(*r.unpack(_ASSIGN)),
    ),
    (15, Abort, lambda m, w: w.uint(m.reason, 1), lambda r: Abort(r.uint(1))),
    (32, Chunk, lambda m, w: w.uint(m.chunk, 2).raw(m.payload), lambda r: Chunk(r.uint(2), r.view(r.remaining))),
    (
        33,
        Sum,
        lambda m, w: w.uint(m.chunk, 2).raw(m.signature, 64).raw(m.payload),
        _decode_sum,
    ),
]
TYPES = {number: kind for number, kind, _, _ in _LAYOUTS}
NUMBERS = {kind: number for number, kind, _, _ in _LAYOUTS}
ENCODERS = {number: encoder for number, _, encoder, _ in _LAYOUTS}
DECODERS = {number: decoder for number, _, _, decoder in _LAYOUTS}
FORWARDED = frozenset(NUMBERS[kind] for kind in (Advert, Decide, Commit, Vote, Result))
