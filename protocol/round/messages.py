"""Messages of p2psa/1 as bytes (spec 07 §3): fixed little-endian layouts, lengths checked before anything is kept."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from protocol.encoding import Reader, Writer
from protocol.errors import EncodingError
from protocol.identity import SIGNATURE_BYTES, Identity, verify
from protocol.round.errors import MessageError
from protocol.secagg.keys import SHARE_BOX_BYTES
from protocol.secagg.parameters import RoundParameters
from protocol.terms import MAX_COHORT

__all__ = [
    "BULK_TYPES",
    "HEADER_BYTES",
    "RESULT_LABEL",
    "Abort",
    "Ack",
    "Advert",
    "Assign",
    "Certificate",
    "Chunk",
    "Codec",
    "Commit",
    "Decide",
    "Forward",
    "Have",
    "Kind",
    "Message",
    "Need",
    "Received",
    "Result",
    "Reveal",
    "Share",
    "Status",
    "Sum",
    "Vote",
    "result_payload",
    "round_tag",
]

VERSION = 1
HEADER_BYTES = 12
MAX_CONTROL_BYTES = 65_536
RESULT_LABEL = "peerplan/1/result"


class Kind:
    """Values of small enumerations on the wire."""

    ROSTER: Final = 1
    MASKED: Final = 2
    SURVIVORS: Final = 3
    LOST: Final = 4
    SEED: Final = 1
    MASK_KEY: Final = 2
    ADVERTS: Final = 1
    COMMITS: Final = 2
    SUMS: Final = 3
    CERTIFICATE: Final = 4


@dataclass(frozen=True)
class Advert:
    """R0: the keys and commitments of one peer."""

    t0: bytes
    mask_public: bytes
    enc_public: bytes
    seed_commitment: bytes
    fingerprint: bytes


@dataclass(frozen=True)
class Decide:
    """A leader's decision; `members` is a bitmap of peers, or of chunks for LOST."""

    kind: int
    view: int
    base: bytes
    members: int
    root: bytes


@dataclass(frozen=True)
class Share:
    """R1: a box with two shares for one peer. `repr` shows no content."""

    box: bytes

    def __repr__(self) -> str:
        return "Share()"


@dataclass(frozen=True)
class Ack:
    """R1: whose shares the sender holds."""

    view: int
    held: int


@dataclass(frozen=True)
class Commit:
    """R2: digests of every packed chunk of the sender."""

    t2: bytes
    digests: tuple[bytes, ...]


@dataclass(frozen=True)
class Have:
    """R3: commits held, and per owned chunk whose contributions are held."""

    view: int
    commits: int
    chunks: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Vote:
    """R3: the one vote a peer casts in a round."""

    t2: bytes
    survivors: int
    root: bytes


@dataclass(frozen=True)
class Certificate:
    """R3: t signatures over one vote; `signatures` in ascending order of the bits of `voters`."""

    t2: bytes
    survivors: int
    root: bytes
    voters: int
    signatures: tuple[bytes, ...]


@dataclass(frozen=True)
class Reveal:
    """R4: the sender's own seed, and shares about others. `repr` shows neither."""

    seed: bytes | None
    shares: tuple[tuple[int, int, bytes], ...]

    def __repr__(self) -> str:
        return f"Reveal(about={[about for about, _, _ in self.shares]})"


@dataclass(frozen=True)
class Result:
    """R5: the digest of the next model, of the tail, and the survivor set, signed for everybody."""

    model_digest: bytes
    tail_digest: bytes
    survivors: int
    signature: bytes


@dataclass(frozen=True)
class Status:
    """Sent to the leader of a new view: every decision the sender adopted, as received."""

    view: int
    decisions: tuple[bytes, ...]


@dataclass(frozen=True)
class Forward:
    """A signed message of another peer, unchanged."""

    message: bytes


@dataclass(frozen=True)
class Need:
    """Asks one peer for what the sender lacks."""

    what: int
    members: int


@dataclass(frozen=True)
class Assign:
    """A leader gives a chunk to a backup owner."""

    view: int
    chunk: int
    owner: int


@dataclass(frozen=True)
class Abort:
    """The sender leaves this attempt."""

    reason: int


@dataclass(frozen=True)
class Chunk:
    """R2: one packed masked chunk."""

    chunk: int
    payload: memoryview


@dataclass(frozen=True)
class Sum:
    """R5: one packed chunk of the aggregate, signed by its owner."""

    chunk: int
    signature: bytes
    payload: memoryview


Message = (
    Advert
    | Decide
    | Share
    | Ack
    | Commit
    | Have
    | Vote
    | Certificate
    | Reveal
    | Result
    | Status
    | Forward
    | Need
    | Assign
    | Abort
    | Chunk
    | Sum
)


@dataclass(frozen=True)
class Received:
    """A decoded message, who made it, and its exact bytes."""

    sender: int
    message: Message
    raw: bytes | memoryview


def round_tag(round_id: str) -> bytes:
    """The eight bytes by which a message names its round."""
    return bytes.fromhex(round_id)[:8]


def result_payload(round_id: str, result_digest: bytes, survivors: int, tail_digest: bytes) -> bytes:
    """What a RESULT signature covers; the signaling server checks the same bytes."""
    return bytes.fromhex(round_id) + result_digest + struct.pack("<Q", survivors) + tail_digest


class Codec:
    """Encodes, signs, decodes and verifies the messages of one round."""

    def __init__(self, parameters: RoundParameters) -> None:
        self._parameters = parameters
        self._tag = round_tag(parameters.round_id)

    def encode(self, sender: int, message: Message, identity: Identity | None = None) -> bytes:
        """Bytes of a message; types that carry a signature of the sender need its identity."""
        number = _NUMBERS[type(message)]
        writer = Writer().uint(VERSION, 1).uint(number, 1).uint(sender, 2).raw(self._tag)
        _ENCODERS[number](message, writer)
        body = bytes(writer)
        if type(message) in _SIGNED:
            if identity is None:
                raise EncodingError(f"{type(message).__name__} is signed by its sender")
            body += identity.sign(_label(message), self._parameters.t0 + body)
        return body

    def decode(self, data: bytes | memoryview, *, bulk: bool) -> Received:
        """Parse a message and verify its signature, where its type carries one over T0.

        Raises:
            MessageError: wrong version, round, type, length, range or signature.
        """
        limit = HEADER_BYTES + 2 + SIGNATURE_BYTES + self._parameters.max_chunk_bytes if bulk else MAX_CONTROL_BYTES
        if len(data) > limit:
            raise MessageError(f"round message of {len(data)} bytes, at most {limit} are accepted")
        try:
            return self._parse(data, bulk=bulk)
        except EncodingError as error:
            raise MessageError(str(error)) from None

    def vote_bytes(self, voter: int, certificate: Certificate) -> bytes:
        """What a voter in a certificate signed, without T0 and the signature."""
        vote = Vote(t2=certificate.t2, survivors=certificate.survivors, root=certificate.root)
        writer = Writer().uint(VERSION, 1).uint(_NUMBERS[Vote], 1).uint(voter, 2).raw(self._tag)
        _ENCODERS[_NUMBERS[Vote]](vote, writer)
        return bytes(writer)

    def verify_vote(self, voter: int, body: bytes, signature: bytes) -> None:
        """Check one vote's signature.

        Raises:
            SignatureError: it is not that voter's.
        """
        verify(self._parameters.cohort[voter], "p2psa/1/vote", self._parameters.t0 + body, signature)

    def _parse(self, data: bytes | memoryview, *, bulk: bool) -> Received:
        reader = Reader(data, what="round message")
        version, number, sender = reader.uint(1), reader.uint(1), reader.uint(2)
        if version != VERSION or number not in _DECODERS:
            raise MessageError(f"round message: version {version} type {number} is unknown")
        kind = _TYPES[number]
        if bulk != (kind in BULK_TYPES):
            raise MessageError(f"{kind.__name__} came as a {'bulk' if bulk else 'control'} message")
        if sender >= self._parameters.size:
            raise MessageError(f"{kind.__name__}: sender {sender}, the cohort has {self._parameters.size} peers")
        if reader.raw(8) != self._tag:
            raise MessageError(f"{kind.__name__} from peer {sender} belongs to another round")
        message = _DECODERS[number](reader)
        self._check_ranges(message)
        if kind in _SIGNED:
            body = bytes(data[: len(data) - reader.remaining])
            signature = reader.raw(SIGNATURE_BYTES)
            verify(self._parameters.cohort[sender], _label(message), self._parameters.t0 + body, signature)
        reader.end()
        return Received(sender=sender, message=message, raw=data)

    def _check_ranges(self, message: Message) -> None:
        size = self._parameters.size
        for name, value in _indexes(message):
            if value >= size:
                raise MessageError(f"{type(message).__name__}: {name} {value}, the cohort has {size} peers")
        for name, bits in _bitmaps(message):
            if bits >> size:
                raise MessageError(f"{type(message).__name__}: {name} names a peer beyond the cohort of {size}")
        _check_lists(message)


def _label(message: Message) -> str:
    return f"p2psa/1/{type(message).__name__.lower()}"


def _check_lists(message: Message) -> None:
    match message:
        case Have(chunks=chunks) if len({chunk for chunk, _ in chunks}) != len(chunks):
            raise MessageError("Have: a chunk is listed twice")
        case Reveal(shares=shares) if len({about for about, _, _ in shares}) != len(shares):
            raise MessageError("Reveal: two shares about one peer")
        case Forward(message=inner) if len(inner) < HEADER_BYTES or inner[1] not in _FORWARDED:
            raise MessageError("Forward: no signed message of another peer")
        case Status(decisions=decisions) if any(len(d) < HEADER_BYTES or d[1] != _NUMBERS[Decide] for d in decisions):
            raise MessageError("Status: something else than decisions")
        case _:
            return


def _indexes(message: Message) -> Iterator[tuple[str, int]]:
    match message:
        case Decide(view=view) | Ack(view=view) | Status(view=view):
            yield "view", view
        case Have(view=view, chunks=chunks):
            yield "view", view
            yield from (("chunk", chunk) for chunk, _ in chunks)
        case Reveal(shares=shares):
            yield from (("peer", about) for about, _, _ in shares)
        case Assign(view=view, chunk=chunk, owner=owner):
            yield from (("view", view), ("chunk", chunk), ("owner", owner))
        case Chunk(chunk=chunk) | Sum(chunk=chunk):
            yield "chunk", chunk
        case _:
            return


def _bitmaps(message: Message) -> Iterator[tuple[str, int]]:
    match message:
        case Decide(members=bits) | Need(members=bits):
            yield "set", bits
        case Ack(held=bits):
            yield "shares held", bits
        case Have(commits=commits, chunks=chunks):
            yield "commits", commits
            yield from (("contributors", held) for _, held in chunks)
        case Vote(survivors=bits) | Result(survivors=bits):
            yield "survivors", bits
        case Certificate(survivors=survivors, voters=voters):
            yield from (("survivors", survivors), ("voters", voters))
        case _:
            return


def _count(reader: Reader, limit: int, size: int = 2) -> int:
    count = reader.uint(size)
    if count > limit:
        raise MessageError(f"round message lists {count} items, at most {limit} are accepted")
    return count


def _slices(reader: Reader, count: int, size: int) -> tuple[bytes, ...]:
    whole = reader.raw(count * size)
    return tuple(whole[at : at + size] for at in range(0, len(whole), size))


def _encode_advert(m: Advert, w: Writer) -> None:
    for part in (m.t0, m.mask_public, m.enc_public, m.seed_commitment, m.fingerprint):
        w.raw(part, 32)


def _encode_decide(m: Decide, w: Writer) -> None:
    w.uint(m.kind, 1).uint(m.view, 1).raw(m.base, 32).uint(m.members, 8).raw(m.root, 32)


def _encode_commit(m: Commit, w: Writer) -> None:
    w.raw(m.t2, 32).uint(len(m.digests), 2)
    for digest in m.digests:
        w.raw(digest, 32)


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
    kind = r.uint(1)
    if not Kind.ROSTER <= kind <= Kind.LOST:
        raise MessageError(f"Decide: kind {kind} is unknown")
    return Decide(kind, r.uint(1), r.raw(32), r.uint(8), r.raw(32))


def _decode_certificate(r: Reader) -> Certificate:
    t2, survivors, root, voters = r.raw(32), r.uint(8), r.raw(32), r.uint(8)
    return Certificate(t2, survivors, root, voters, _slices(r, voters.bit_count(), SIGNATURE_BYTES))


def _decode_need(r: Reader) -> Need:
    what = r.uint(1)
    if not Kind.ADVERTS <= what <= Kind.CERTIFICATE:
        raise MessageError(f"Need: {what} is unknown")
    return Need(what, r.uint(8))


def _decode_reveal(r: Reader) -> Reveal:
    has_seed = r.uint(1)
    if has_seed > 1:
        raise MessageError(f"Reveal: flag {has_seed}, expected 0 or 1")
    seed = r.raw(32) if has_seed else None
    shares = []
    for _ in range(_count(r, MAX_COHORT)):
        about, kind, share = r.uint(2), r.uint(1), r.raw(32)
        if kind not in (Kind.SEED, Kind.MASK_KEY):
            raise MessageError(f"Reveal: share of kind {kind} is unknown")
        shares.append((about, kind, share))
    return Reveal(seed, tuple(shares))


# One row per type: number, class, encoder, decoder, in the order of spec 07 §3.
_LAYOUTS: list[tuple[int, type, Callable[..., object], Callable[[Reader], Message]]] = [
    (1, Advert, _encode_advert, lambda r: Advert(*(r.raw(32) for _ in range(5)))),
    (2, Decide, _encode_decide, _decode_decide),
    (3, Share, lambda m, w: w.raw(m.box, SHARE_BOX_BYTES), lambda r: Share(r.raw(SHARE_BOX_BYTES))),
    (4, Ack, lambda m, w: w.uint(m.view, 1).uint(m.held, 8), lambda r: Ack(r.uint(1), r.uint(8))),
    (
        5,
        Commit,
        _encode_commit,
        lambda r: Commit(r.raw(32), _slices(r, _count(r, MAX_COHORT), 32)),
    ),
    (
        6,
        Have,
        _encode_have,
        lambda r: Have(r.uint(1), r.uint(8), tuple((r.uint(2), r.uint(8)) for _ in range(_count(r, MAX_COHORT)))),
    ),
    (
        7,
        Vote,
        lambda m, w: w.raw(m.t2, 32).uint(m.survivors, 8).raw(m.root, 32),
        lambda r: Vote(r.raw(32), r.uint(8), r.raw(32)),
    ),
    (8, Certificate, _encode_certificate, _decode_certificate),
    (9, Reveal, _encode_reveal, _decode_reveal),
    (
        10,
        Result,
        lambda m, w: w.raw(m.model_digest, 32).raw(m.tail_digest, 32).uint(m.survivors, 8).raw(m.signature, 64),
        lambda r: Result(r.raw(32), r.raw(32), r.uint(8), r.raw(SIGNATURE_BYTES)),
    ),
    (
        11,
        Status,
        _encode_status,
        lambda r: Status(r.uint(1), tuple(r.raw(_count(r, 512)) for _ in range(_count(r, 8, 1)))),
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
        lambda r: Assign(r.uint(1), r.uint(2), r.uint(2)),
    ),
    (15, Abort, lambda m, w: w.uint(m.reason, 1), lambda r: Abort(r.uint(1))),
    (32, Chunk, lambda m, w: w.uint(m.chunk, 2).raw(m.payload), lambda r: Chunk(r.uint(2), r.view(r.remaining))),
    (
        33,
        Sum,
        lambda m, w: w.uint(m.chunk, 2).raw(m.signature, 64).raw(m.payload),
        lambda r: Sum(r.uint(2), r.raw(SIGNATURE_BYTES), r.view(r.remaining)),
    ),
]
_TYPES = {number: kind for number, kind, _, _ in _LAYOUTS}
_NUMBERS = {kind: number for number, kind, _, _ in _LAYOUTS}
_ENCODERS = {number: encoder for number, _, encoder, _ in _LAYOUTS}
_DECODERS = {number: decoder for number, _, _, decoder in _LAYOUTS}
_SIGNED = frozenset({Advert, Decide, Commit, Vote})
_FORWARDED = frozenset(_NUMBERS[kind] for kind in (Advert, Decide, Commit, Vote, Result))
BULK_TYPES = frozenset({Chunk, Sum})
