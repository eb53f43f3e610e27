"""What all signaling messages share (spec 03 §2): strict JSON records told apart by `type`, and their bounds."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from protocol.encoding import Hex64

__all__ = [
    "BLOB_PART_BYTES",
    "BLOB_PART_HEADER_BYTES",
    "MAX_FRAME_BYTES",
    "MAX_METRICS_BYTES",
    "MAX_PAGE",
    "MAX_RELAY_BYTES",
    "VERSION",
    "Bytes32",
    "Event",
    "Member",
    "Message",
    "Record",
    "Reply",
    "Request",
    "RequestId",
    "Sentence",
    "Signature",
]

VERSION = 1
"""Version of the signaling protocol; a peer and a signaling server must share one."""

MAX_FRAME_BYTES = 256 << 10
"""Bytes of one websocket message, text or binary; a larger one closes the connection."""

BLOB_PART_HEADER_BYTES = 40
BLOB_PART_BYTES = MAX_FRAME_BYTES - BLOB_PART_HEADER_BYTES
"""Bytes of a blob one binary frame carries at most."""

MAX_RELAY_BYTES = 32 << 10
MAX_METRICS_BYTES = 8 << 10
MAX_PAGE = 100

RequestId = Annotated[int, msgspec.Meta(ge=1, le=(1 << 53) - 1)]
"""Chosen by the peer, unique among its open requests; stays within what every language's JSON numbers hold."""

Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Sentence = Annotated[str, msgspec.Meta(max_length=1024)]

_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def _snake_case(name: str) -> str:
    return _BOUNDARY.sub("_", name).lower()


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A part of a message: frozen, strict, without a type of its own."""


class Message(Record, frozen=True, kw_only=True, tag_field="type", tag=_snake_case):
    """Base of all messages; the wire `type` is the class name in snake_case."""


class Request(Message, frozen=True, kw_only=True):
    """From a peer; every request but `relay` gets exactly one reply or error that repeats `id` as `re`."""

    id: RequestId


class Reply(Message, frozen=True, kw_only=True):
    """From the signaling server: the answer to request `re`."""

    re: RequestId


class Event(Message, frozen=True, kw_only=True):
    """From the signaling server, unasked."""


class Member(Record, frozen=True, kw_only=True):
    """A peer another may link to. `sealing_key` is its X25519 key; the signature binds it to the identity."""

    peer: Hex64
    sealing_key: Bytes32 | None = None
    sealing_signature: Signature | None = None
