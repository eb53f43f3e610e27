"""Frames of the websocket (spec 03 §2): text is one JSON message, binary is one part of a blob."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from protocol.encoding import Digest, decode_json, encode_json
from protocol.errors import EncodingError, LimitExceededError
from protocol.signaling import catalog, handshake, relay, rounds, runs
from protocol.signaling.base import BLOB_PART_BYTES, BLOB_PART_HEADER_BYTES, MAX_FRAME_BYTES, Message

__all__ = [
    "BlobPart",
    "FromPeer",
    "FromServer",
    "decode_blob_part",
    "decode_from_peer",
    "decode_from_server",
    "encode_blob_part",
    "encode_message",
]

FromPeer: TypeAlias = (
    handshake.Authenticate
    | catalog.PublishPlan
    | catalog.GetPlan
    | catalog.GetBlob
    | catalog.ListPlans
    | runs.OpenRun
    | runs.GetRun
    | runs.ListRuns
    | runs.StopRun
    | runs.Register
    | runs.Accept
    | runs.Ready
    | runs.Decline
    | runs.Withdraw
    | runs.Watch
    | runs.Unwatch
    | rounds.Result
    | rounds.RoundFailed
    | rounds.Log
    | relay.Relay
    | relay.Introduce
)
"""Every message a peer may send."""

FromServer: TypeAlias = (
    handshake.Challenge
    | handshake.Welcome
    | handshake.Error
    | catalog.PlanStatus
    | catalog.BlobProgress
    | catalog.PlanReply
    | catalog.BlobSlice
    | catalog.Plans
    | runs.RunReply
    | runs.Runs
    | runs.Offer
    | runs.RunChanged
    | runs.Done
    | rounds.RoundStart
    | rounds.RoundAborted
    | rounds.RoundOpened
    | rounds.RoundLogged
    | rounds.LogPage
    | rounds.PeerGone
    | rounds.PeerBack
    | relay.Relayed
    | relay.Introduction
    | relay.Introduced
)
"""Every message the signaling server may send."""

# A union is no `type[T]` to mypy (PEP 747 is not in Python 3.11), hence Any.
_FROM_PEER: Any = FromPeer
_FROM_SERVER: Any = FromServer


def encode_message(message: Message) -> str:
    """The text frame of a message.

    Raises:
        LimitExceededError: it is larger than the other side would accept.
    """
    data = encode_json(message)
    if len(data) > MAX_FRAME_BYTES:
        raise LimitExceededError(
            f"{type(message).__struct_config__.tag}: {len(data)} bytes, at most {MAX_FRAME_BYTES} fit a frame"
        )
    return data.decode()


def decode_from_peer(text: str | bytes) -> FromPeer:
    """Parse a peer's text frame.

    Raises:
        LimitExceededError, EncodingError: it is too large, or no message a peer may send.
    """
    message: FromPeer = decode_json(text, _FROM_PEER, what="message from a peer", max_bytes=MAX_FRAME_BYTES)
    return message


def decode_from_server(text: str | bytes) -> FromServer:
    """Parse the signaling server's text frame.

    Raises:
        LimitExceededError, EncodingError: it is too large, or no message a signaling server may send.
    """
    message: FromServer = decode_json(
        text, _FROM_SERVER, what="message from the signaling server", max_bytes=MAX_FRAME_BYTES
    )
    return message


class BlobPart(msgspec.Struct, frozen=True):
    """`data` is what blob `digest` holds from byte `offset` on; a view of the frame it came in."""

    digest: Digest
    offset: int
    data: memoryview


def encode_blob_part(digest: str, offset: int, data: bytes | memoryview) -> bytes:
    """The binary frame: digest (32) | u64le offset | 1 to `BLOB_PART_BYTES` bytes.

    Raises:
        LimitExceededError: too many bytes for one frame, or none.
    """
    if not 1 <= len(data) <= BLOB_PART_BYTES:
        raise LimitExceededError(f"blob part: {len(data)} bytes, expected 1 to {BLOB_PART_BYTES}")
    return b"".join([bytes.fromhex(digest), offset.to_bytes(8, "little"), data])


def decode_blob_part(frame: bytes) -> BlobPart:
    """Parse a binary frame.

    Raises:
        LimitExceededError, EncodingError: too long, or too short to hold a byte.
    """
    if len(frame) > MAX_FRAME_BYTES:
        raise LimitExceededError(f"blob part: {len(frame)} bytes, at most {MAX_FRAME_BYTES} are accepted")
    if len(frame) <= BLOB_PART_HEADER_BYTES:
        raise EncodingError(f"blob part: {len(frame)} bytes, expected more than {BLOB_PART_HEADER_BYTES}")
    view = memoryview(frame)
    return BlobPart(
        digest=Digest(frame[:32].hex()),
        offset=int.from_bytes(view[32:40], "little"),
        data=view[BLOB_PART_HEADER_BYTES:],
    )
