"""Whatever bytes a peer sends, the decoder and the machine answer with a documented error or none."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import ProtocolError
from protocol.round.codec import Codec
from tests.round.network import Network

NETWORK = Network(5)
NETWORK.start()
NETWORK.run()
CODEC = Codec(NETWORK.parameters)
HEADER = bytes.fromhex(NETWORK.parameters.round_id)[:8]
KINDS = sorted({data[1] for _, _, data, _ in NETWORK.sent})


@given(st.binary(max_size=400), st.booleans())
def test_noise_raises_documented_errors_only(data: bytes, bulk: bool) -> None:  # noqa: FBT001
    with pytest.raises(ProtocolError):
        CODEC.decode(data, bulk=bulk)


@settings(max_examples=500)
@given(st.integers(0, 40), st.integers(0, 6), st.binary(max_size=300), st.booleans())
def test_noise_behind_a_good_header_raises_documented_errors_only(
    kind: int,
    sender: int,
    body: bytes,
    bulk: bool,  # noqa: FBT001
) -> None:
    data = bytes([1, kind]) + sender.to_bytes(2, "little") + HEADER + body
    try:
        received = CODEC.decode(data, bulk=bulk)
    except ProtocolError:
        return
    assert received.sender < 5
    assert CODEC.encode(received.sender, received.message) == data  # what parses has one encoding


@settings(max_examples=500)
@given(st.data())
def test_mutated_messages_never_break_a_machine(data: st.DataObject) -> None:
    sender, to, raw, bulk = data.draw(st.sampled_from(NETWORK.sent))
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        match data.draw(st.sampled_from(["set", "cut", "grow"])):
            case "set":
                changed[at] = data.draw(st.integers(0, 255))
            case "cut" if at:
                del changed[at:]
            case _:
                changed[at:at] = data.draw(st.binary(max_size=9))
    with contextlib.suppress(ProtocolError):
        CODEC.decode(bytes(changed), bulk=bulk)
    fresh = Network(5)
    fresh.start()
    fresh.members[to].machine.receive(sender, bytes(changed), bulk=bulk, now=0.0)
    fresh._do(to)
    assert fresh.members[to].failed is None


def test_every_type_of_message_was_among_the_mutated() -> None:
    assert {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 32, 33} <= set(KINDS)
