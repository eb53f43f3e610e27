"""Fetching a run's model from a peer over a link (spec 06 §5): one request, a header, parts in order.

A model is the parameters, then the buffers, as little-endian float32; whoever fetches knows its digest and its size
beforehand, from the signed plan and the signed results.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.encoding import Reader, Writer
from protocol.errors import EncodingError

__all__ = [
    "PART_BYTES",
    "ModelHeader",
    "ModelMessage",
    "ModelPart",
    "ModelRefusal",
    "ModelRequest",
    "decode",
    "encode",
]

PART_BYTES = 256 << 10
_VERSION = 1


@dataclass(frozen=True)
class ModelRequest:
    """Asks for the model after `round` logged rounds; `digest` says which bytes are meant."""

    run: bytes
    round: int
    digest: bytes


@dataclass(frozen=True)
class ModelHeader:
    """`total` bytes follow in parts."""

    run: bytes
    digest: bytes
    total: int


@dataclass(frozen=True)
class ModelPart:
    """Bytes from `offset` on."""

    run: bytes
    offset: int
    payload: bytes | memoryview


@dataclass(frozen=True)
class ModelRefusal:
    """The peer does not hold that model, or its owner does not share it."""

    run: bytes
    digest: bytes


ModelMessage = ModelRequest | ModelHeader | ModelPart | ModelRefusal


def encode(message: ModelMessage) -> bytes:
    """Bytes of a model message."""
    writer = Writer().uint(_VERSION, 1)
    match message:
        case ModelRequest(run=run, round=number, digest=digest):
            writer.uint(1, 1).raw(run, 32).uint(number, 4).raw(digest, 32)
        case ModelHeader(run=run, digest=digest, total=total):
            writer.uint(2, 1).raw(run, 32).raw(digest, 32).uint(total, 8)
        case ModelPart(run=run, offset=offset, payload=payload):
            writer.uint(3, 1).raw(run, 32).uint(offset, 8).raw(payload)
        case ModelRefusal(run=run, digest=digest):
            writer.uint(4, 1).raw(run, 32).raw(digest, 32)
    return bytes(writer)


def decode(data: bytes | memoryview) -> ModelMessage:
    """Parse a model message.

    Raises:
        EncodingError: unknown version or type, or a wrong length.
    """
    reader = Reader(data, what="model message")
    version, kind = reader.uint(1), reader.uint(1)
    if version != _VERSION or not 1 <= kind <= 4:
        raise EncodingError(f"model message: version {version} type {kind} is unknown")
    run = reader.raw(32)
    message: ModelMessage
    if kind == 1:
        message = ModelRequest(run, reader.uint(4), reader.raw(32))
    elif kind == 2:
        message = ModelHeader(run, reader.raw(32), reader.uint(8))
    elif kind == 3:
        message = ModelPart(run, reader.uint(8), reader.view(reader.remaining))
    else:
        message = ModelRefusal(run, reader.raw(32))
    reader.end()
    return message
