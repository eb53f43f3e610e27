"""Messages of p2psa/1 to bytes and back (spec 07 §3): header, ranges, and the signature of those that carry one."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from protocol.encoding import Reader, Writer
from protocol.errors import EncodingError
from protocol.identity import SIGNATURE_BYTES, Identity, verify
from protocol.round.errors import MessageError
from protocol.round.layouts import DECODERS, ENCODERS, FORWARDED, MAX_CONTROL_BYTES, NUMBERS, TYPES
from protocol.round.messages import (
    BULK_TYPES,
    HEADER_BYTES,
    Ack,
    Advert,
    Assign,
    Certificate,
    Chunk,
    Commit,
    Decide,
    Forward,
    Have,
    Message,
    Need,
    Received,
    Result,
    Reveal,
    Status,
    Sum,
    Vote,
    round_tag,
)
from protocol.secagg.parameters import RoundParameters

__all__ = ["Codec"]

VERSION = 1
_SIGNED = frozenset({Advert, Decide, Commit, Vote})
_HEADER = struct.Struct("<BBH8s")


class Codec:
    """Encodes, signs, decodes and verifies the messages of one round."""

    def __init__(self, parameters: RoundParameters) -> None:
        self._parameters = parameters
        self._tag = round_tag(parameters.round_id)

    def encode(self, sender: int, message: Message, identity: Identity | None = None) -> bytes:
        """Bytes of a message; types that carry a signature of the sender need its identity."""
        number = NUMBERS[type(message)]
        writer = Writer().raw(_HEADER.pack(VERSION, number, sender, self._tag))
        ENCODERS[number](message, writer)
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
        writer = Writer().raw(_HEADER.pack(VERSION, NUMBERS[Vote], voter, self._tag))
        ENCODERS[NUMBERS[Vote]](vote, writer)
        return bytes(writer)

    def verify_vote(self, voter: int, body: bytes, signature: bytes) -> None:
        """Check one vote's signature.

        Raises:
            SignatureError: it is not that voter's.
        """
        verify(self._parameters.cohort[voter], "p2psa/1/vote", self._parameters.t0 + body, signature)

    def _parse(self, data: bytes | memoryview, *, bulk: bool) -> Received:
        if len(data) < HEADER_BYTES:
            raise MessageError(f"round message of {len(data)} bytes, expected a header of {HEADER_BYTES}")
        version, number, sender, tag = _HEADER.unpack_from(data)
        if version != VERSION or number not in DECODERS:
            raise MessageError(f"round message: version {version} type {number} is unknown")
        kind = TYPES[number]
        if bulk != (kind in BULK_TYPES):
            raise MessageError(f"{kind.__name__} came as a {'bulk' if bulk else 'control'} message")
        if sender >= self._parameters.size:
            raise MessageError(f"{kind.__name__}: sender {sender}, the cohort has {self._parameters.size} peers")
        if tag != self._tag:
            raise MessageError(f"{kind.__name__} from peer {sender} belongs to another round")
        reader = Reader(data, what="round message", start=HEADER_BYTES)
        message = DECODERS[number](reader)
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
        case Forward(message=inner) if len(inner) < HEADER_BYTES or inner[1] not in FORWARDED:
            raise MessageError("Forward: no signed message of another peer")
        case Status(decisions=decisions) if any(len(d) < HEADER_BYTES or d[1] != NUMBERS[Decide] for d in decisions):
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
