"""Every decoder of signaling input raises documented errors only, and gives back what was encoded."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import protocol.signaling as messages
from protocol.errors import EncodingError, LimitExceededError, ProtocolError
from protocol.signaling import (
    MAX_FRAME_BYTES,
    Relay,
    bitmap_of,
    decode_blob_part,
    decode_from_peer,
    decode_from_server,
    encode_blob_part,
    encode_message,
    indices_of,
)

DECODERS = (decode_from_peer, decode_from_server)
TYPES = sorted(
    {
        kind.__struct_config__.tag
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, messages.Message)
    }
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70) | st.just("ab" * 32),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["id", "re", "run", "plan", "envelope", "round", "attempt", "survivors", "signatures", "members", "via", "to"]
)


@pytest.mark.parametrize("decode", DECODERS)
@given(st.binary(max_size=300))
def test_random_bytes_raise_documented_errors_only(decode, data: bytes):
    with pytest.raises(ProtocolError):
        decode(data)


@pytest.mark.parametrize("decode", DECODERS)
@settings(max_examples=400)
@given(st.sampled_from(TYPES), st.dictionaries(FIELDS, VALUES, max_size=6))
def test_random_fields_raise_documented_errors_only(decode, kind: str, fields: dict):
    text = json.dumps({"type": kind, **fields})
    try:
        message = decode(text)
    except ProtocolError:
        return
    assert decode(encode_message(message)) == message


@given(st.binary(max_size=100))
def test_random_blob_frames_parse_or_raise_documented_errors(frame: bytes):
    try:
        part = decode_blob_part(frame)
    except ProtocolError:
        assert len(frame) <= 40
        return
    assert encode_blob_part(part.digest, part.offset, part.data) == frame


def test_oversize_messages_are_refused_before_they_are_parsed():
    for decode in DECODERS:
        with pytest.raises(LimitExceededError):
            decode("[" * (MAX_FRAME_BYTES + 1))
    with pytest.raises(LimitExceededError):
        decode_blob_part(bytes(MAX_FRAME_BYTES + 1))


@given(st.integers(min_value=0, max_value=(1 << 64) - 1))
def test_survivors_and_their_bitmap_are_two_forms_of_one_set(bitmap: int):
    assert bitmap_of(indices_of(bitmap)) == bitmap


@pytest.mark.parametrize("indices", [(1, 0), (2, 2), (64,), (-1,)])
def test_survivors_out_of_order_or_range_are_refused(indices):
    with pytest.raises(EncodingError):
        bitmap_of(indices)


def test_a_payload_above_the_relay_limit_is_refused():
    text = json.dumps(
        {
            "type": "relay",
            "id": 1,
            "to": "ab" * 32,
            "via": "ab" * 32,
            "kind": "offer",
            "payload": "A" * (4 * (32 << 10) // 3 + 8),
        }
    )
    with pytest.raises(EncodingError):
        decode_from_peer(text)
    assert isinstance(
        decode_from_peer(
            encode_message(Relay(id=1, to="ab" * 32, via="ab" * 32, kind="offer", payload=bytes(32 << 10)))
        ),
        Relay,
    )


def test_the_types_on_the_wire_are_pinned():
    assert TYPES == [
        "accept",
        "authenticate",
        "blob_progress",
        "blob_slice",
        "challenge",
        "decline",
        "done",
        "error",
        "event",
        "get_blob",
        "get_plan",
        "get_run",
        "introduce",
        "introduced",
        "introduction",
        "list_plans",
        "list_runs",
        "log",
        "log_page",
        "message",
        "offer",
        "open_run",
        "peer_back",
        "peer_gone",
        "plan_reply",
        "plan_status",
        "plans",
        "publish_plan",
        "ready",
        "register",
        "relay",
        "relayed",
        "reply",
        "request",
        "result",
        "round_aborted",
        "round_failed",
        "round_logged",
        "round_opened",
        "round_start",
        "run_changed",
        "run_reply",
        "runs",
        "stop_run",
        "unwatch",
        "watch",
        "welcome",
        "withdraw",
    ]
