"""Messages of p2psa/1 to bytes and back (spec 07 §3): header, ranges, and the signature of those that carry one."""

from __future__ import annotations

import struct

from protocol.encoding import Reader, Writer
from protocol.errors import EncodingError
from protocol.identity import SIGNATURE_BYTES, Identity, verify
from protocol.round.errors import MessageError
from protocol.round.layouts import DECODERS, ENCODERS, MAX_CONTROL_BYTES, NUMBERS, TYPES
from protocol.round.messages import (
    BULK_TYPES,
    HEADER_BYTES,
    RESULT_LABEL,
    Advert,
    Certificate,
    Commit,
    Decide,
    Forward,
    Message,
    Received,
    Result,
    Status,
    Vote,
    result_payload,
    round_tag,
)
from protocol.round.ranges import check_chunks, check_ranges
from protocol.secagg.parameters import ChunkPlan, RoundParameters

__all__ = ["Codec"]

VERSION = 1
_LABELS: dict[type, str] = {
    Advert: "p2psa/1/advert",
    Decide: "p2psa/1/decide",
    Commit: "p2psa/1/commit",
    Vote: "p2psa/1/vote",
}
"""Of the types that carry a signature of their sender."""

_HEADER = struct.Struct("<BBH8s")


class Codec:
    """Encodes, signs, decodes and verifies the messages of one round."""

    def __init__(self, parameters: RoundParameters) -> None:
        self._parameters = parameters
        self._tag = round_tag(parameters.round_id)
        self._chunk_sizes: tuple[int, ...] | None = None
        self._bulk_limit = HEADER_BYTES + 2 + SIGNATURE_BYTES + parameters.max_chunk_bytes

    def know_chunks(self, plan: ChunkPlan) -> None:
        """From now on chunk indexes, counts and sizes are those of this plan."""
        bounds = [plan.bounds(chunk) for chunk in range(plan.count)]
        self._chunk_sizes = tuple(self._parameters.packed_bytes(end - start) for start, end in bounds)

    def encode(self, sender: int, message: Message, identity: Identity | None = None) -> bytes:
        """Bytes of a message; types that carry a signature of the sender need its identity."""
        number = NUMBERS[type(message)]
        writer = Writer().raw(_HEADER.pack(VERSION, number, sender, self._tag))
        ENCODERS[number](message, writer)
        body = bytes(writer)
        label = _LABELS.get(type(message))
        if label is not None:
            if identity is None:
                raise EncodingError(f"{type(message).__name__} is signed by its sender")
            body += identity.sign(label, self._parameters.t0 + body)
        return body

    def decode(self, data: bytes | memoryview, *, bulk: bool) -> Received:
        """Parse a message and verify its signature, where its type carries one over T0.

        Raises:
            MessageError: wrong version, round, type, length, range or signature.
        """
        limit = self._bulk_limit if bulk else MAX_CONTROL_BYTES
        if len(data) > limit:
            raise MessageError(f"round message of {len(data)} bytes, at most {limit} are accepted")
        try:
            return self._parse(data, bulk=bulk)
        except EncodingError as error:
            raise MessageError(str(error)) from None

    def verify_votes(self, certificate: Certificate, voters: list[int]) -> None:
        """Check the signature of each vote in a certificate; `voters` in ascending order.

        Raises:
            SignatureError: one is not that voter's.
        """
        content = Writer()
        ENCODERS[NUMBERS[Vote]](Vote(certificate.t2, certificate.survivors, certificate.root), content)
        for voter, signature in zip(voters, certificate.signatures, strict=True):
            body = _HEADER.pack(VERSION, NUMBERS[Vote], voter, self._tag) + bytes(content)
            verify(self._parameters.cohort[voter], _LABELS[Vote], self._parameters.t0 + body, signature)

    def _parse(self, data: bytes | memoryview, *, bulk: bool, verified: bool = True) -> Received:
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
        check_ranges(message, self._parameters.size)
        if self._chunk_sizes is not None:
            check_chunks(message, self._chunk_sizes)
        for inner in _inside(message):
            self._parse(inner, bulk=False, verified=False)
        label = _LABELS.get(kind)
        if label is not None:
            body = bytes(data[: len(data) - reader.remaining])
            signature = reader.raw(SIGNATURE_BYTES)
            if verified:
                verify(self._parameters.cohort[sender], label, self._parameters.t0 + body, signature)
        elif verified and isinstance(message, Result):
            result = (message.model_digest, message.survivors, message.tail_digest)
            payload = result_payload(self._parameters.round_id, *result)
            verify(self._parameters.cohort[sender], RESULT_LABEL, payload, message.signature)
        reader.end()
        return Received(sender=sender, message=message, raw=data)


def _inside(message: Message) -> tuple[bytes, ...]:
    """Messages inside another one; their types were checked, so that they never nest deeper."""
    if isinstance(message, Status):
        return message.decisions
    return (message.message,) if isinstance(message, Forward) else ()
