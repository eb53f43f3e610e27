"""What a peer may do that has proved who it is: every packet here comes over the DTLS session of an open link."""

import asyncio
import random
import struct

import aiortc.rtcsctptransport as library
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.links.wire import (
    ABORT,
    COOKIE_ECHO,
    DATA,
    ERROR,
    HEARTBEAT,
    INIT,
    INIT_ACK,
    RECONFIG,
    SACK,
    SHUTDOWN,
    Wire,
    chunk,
    chunks_of,
    data,
    held_bytes,
    is_alive,
    next_tsn,
    sack,
    settle,
)


@pytest.fixture
async def wire():
    return await Wire().join()


NO_LENGTH = struct.pack("!HH", 7, 0)
SHORT = struct.pack("!HH", 13, 8) + b"abcd"


@pytest.mark.parametrize("kind", [INIT_ACK, ERROR, RECONFIG])
async def test_parameters_without_length_do_not_keep_the_library_busy_for_ever(wire, kind):
    body = (bytes(16) if kind == INIT_ACK else b"") + NO_LENGTH
    wire.a.deliver(chunk(kind, body))
    assert wire.a.closed
    assert "parameter of 0 bytes" in wire.a.sctp.refusal


def test_the_library_alone_refuses_them_too():
    with pytest.raises(ValueError, match="parameter of 0 bytes"):
        library.decode_params(NO_LENGTH)
    packet = struct.pack("!HHL", 5000, 5000, 1) + bytes(4) + chunk(HEARTBEAT, NO_LENGTH)
    packet = packet[:8] + struct.pack("<L", library.crc32c(packet)) + packet[12:]
    with pytest.raises(ValueError, match="parameter of 0 bytes"):
        library.parse_packet(packet)


@pytest.mark.parametrize(
    "chunks",
    [
        chunk(INIT_ACK, bytes(15)),
        chunk(SHUTDOWN, b"x"),
        chunk(RECONFIG, SHORT),
        chunk(RECONFIG, 3 * (struct.pack("!HH", 16, 12) + bytes(8))),
        chunk(DATA, bytes(12)),
        chunk(DATA, bytes(3)),
        chunk(SACK, bytes(11)),
        chunk(SACK, struct.pack("!LLHH", 0, 0, 1, 0)),
        b"\0\3\0\3",
        b"\0\3\0\xff",
        chunk(HEARTBEAT) * 9,
        chunk(RECONFIG, struct.pack("!HH", 16, 1200) + bytes(1196)),
    ],
)
async def test_what_is_malformed_ends_the_link_with_one_sentence(wire, chunks):
    wire.a.deliver(chunks)
    assert wire.a.closed
    assert "expected" in wire.a.sctp.refusal
    assert [kind for kind, _, _ in chunks_of(wire.a.take()[-1][1])] == [ABORT]


async def test_an_end_has_its_reason_for_people(network):
    a, b = await network_pair(network)
    receiver = network.link(b, a)._rtc._channel.transport
    receiver.handle_packet(packet_to(receiver, data(receiver._last_received_tsn + 1, stream=7)))
    await network.until(lambda: any(link[0] == b and not link[2] for link in network.links))
    reason = next(link[3] for link in network.links if link[0] == b and not link[2])
    assert "expected data on stream 0" in reason
    assert "got stream 7" in reason


async def network_pair(network):
    a, b = network.pair()
    await network.connect_all()
    return a, b


def packet_to(sctp, chunks):
    packet = struct.pack("!HHL", 5000, 5000, sctp._local_verification_tag) + bytes(4) + chunks
    return packet[:8] + struct.pack("<L", library.crc32c(packet)) + packet[12:]


async def test_an_init_among_other_chunks_changes_nothing(wire):
    init = chunk(INIT, struct.pack("!LLHHL", 5, 1 << 20, 1, 1, 9))
    for chunks, tag in ((init + chunk(HEARTBEAT), 0), (init, None), (chunk(HEARTBEAT) + init, None)):
        wire.a.deliver(chunks, tag=tag)
    assert await is_alive(wire)


async def test_an_init_among_other_chunks_begins_nothing():
    end = Wire().a
    await end.sctp.start(None, 5000)
    end.take()
    init = chunk(INIT, struct.pack("!LLHHL", 5, 1 << 20, 1, 1, 9))
    for chunks in (init + chunk(HEARTBEAT), chunk(HEARTBEAT) + init, init + init):
        end.deliver(chunks, tag=0)
    assert end.take() == []
    end.deliver(init, tag=0)
    assert [kind for kind, _, _ in chunks_of(end.take()[0][1])] == [INIT_ACK]


async def test_a_flood_of_inits_on_an_open_link_is_not_answered(wire):
    before = dict(vars(wire.a.sctp))
    for number in range(1000):
        wire.a.deliver(chunk(INIT, struct.pack("!LLHHL", number + 1, 1 << 20, 9, 9, number)), tag=0)
    assert wire.a.take() == []
    changed = {name for name, value in vars(wire.a.sctp).items() if before.get(name) is not value}
    assert changed <= {"_data_channel_queue"}
    assert await is_alive(wire)


async def test_packets_with_another_tag_change_nothing(wire):
    old = wire.a.sctp._local_verification_tag
    first = next_tsn(wire)
    for tag in (0, old ^ 1, (old + 1) % 2**32, wire.b.sctp._local_verification_tag):
        for chunks in (data(first), sack(wire.a.sctp._local_tsn + 5), chunk(ABORT), chunk(HEARTBEAT, bytes(4))):
            wire.a.deliver(chunks, tag=tag)
    assert wire.a.received == []
    assert wire.a.take() == []
    assert await is_alive(wire)


@pytest.mark.parametrize("ahead", [1, 2, 1000, 2**31 - 1])
async def test_an_acknowledgement_of_what_was_never_sent_ends_the_link(wire, ahead):
    wire.a.channel.send(b"sent")
    sent = wire.a.sctp._local_tsn - 1
    wire.a.deliver(sack(sent + ahead))
    assert wire.a.closed
    assert "never sent" in wire.a.sctp.refusal


async def test_an_acknowledgement_of_what_still_waits_for_the_window_ends_the_link(wire):
    for _ in range(4):
        wire.a.channel.send(bytes(60_000))
    waiting = wire.a.sctp._outbound_queue
    assert waiting
    wire.a.deliver(sack(waiting[0].tsn))
    assert wire.a.closed


@pytest.mark.parametrize(
    "gaps",
    [
        [(2, 65535)] * 280,
        [(2, 3)] * 280,
        [(65535, 65535)],
        [(2, 20)],
        [(3, 2)],
        [(0, 1)],
    ],
    ids=["longest", "same", "far", "beyond", "backwards", "none"],
)
async def test_gap_blocks_that_no_receiver_has_end_the_link_before_they_cost_time(wire, gaps, monkeypatch):
    walked = []
    monkeypatch.setattr(type(wire.a.sctp), "_receive_sack_chunk", lambda *_: walked.append(1))
    wire.a.channel.send(bytes(12_000))
    acknowledged = wire.a.sctp._last_sacked_tsn
    wire.a.deliver(sack(acknowledged, *gaps))
    assert wire.a.closed
    assert "gap" in wire.a.sctp.refusal
    assert walked == []


async def test_old_acknowledgements_change_nothing(wire):
    old = wire.a.sctp._last_sacked_tsn
    wire.a.channel.send(b"sent")
    await wire.acknowledge()
    for back in (0, 1, 77, 2**31 - 2):
        wire.a.deliver(sack(old - back, (2, 65535)))
    assert await is_alive(wire)


@pytest.mark.parametrize("missing", [0, 1])
async def test_a_channel_that_is_reset_ends_the_link_when_its_last_data_came(wire, missing):
    """Else a peer that never answers our own reset would have a link on which only it speaks."""
    tsn = next_tsn(wire)
    reset = struct.pack("!LLLH", wire.b.sctp._reconfig_request_seq, 0, (tsn + missing - 1) % 2**32, 0)
    wire.a.deliver(chunk(RECONFIG, struct.pack("!HH", 13, 4 + len(reset)) + reset + bytes(2)))
    if missing:
        assert not wire.a.closed
        wire.a.deliver(data(tsn, b"last"))
    await settle()
    assert wire.a.closed
    assert wire.a.received == [b"last"] * missing
    assert wire.a.sctp.refusal == ""


async def test_nothing_brings_an_ended_association_back(wire):
    cookie = []

    def lost(packet):
        cookie.extend(body for kind, _, body in chunks_of(packet) if kind == COOKIE_ECHO)
        return False

    late = Wire()
    for end in (late.a, late.b):
        await end.sctp.start(None, 5000)
    await late.carry(lost=lost)
    late.a.deliver(chunk(ABORT))
    late.a.take()
    tsn = next_tsn(late)
    for chunks in (*(chunk(COOKIE_ECHO, body) for body in cookie), data(tsn), chunk(HEARTBEAT, bytes(4))):
        late.a.deliver(chunks)
    late.a.deliver(chunk(INIT, struct.pack("!LLHHL", 5, 1 << 20, 1, 1, 9)), tag=0)
    await settle()
    assert cookie
    assert late.a.take() == []
    assert late.a.received == []
    assert late.a.sctp.state == "closed"


async def test_heartbeats_are_answered_as_they_came_and_with_no_more_than_was_sent(wire):
    info = random.Random(1).randbytes(33)
    wire.a.deliver(chunk(HEARTBEAT, info))
    assert [chunks_of(packet) for _, packet in wire.a.take()] == [[(5, 0, info)]]
    wire.a.deliver(chunk(HEARTBEAT, NO_LENGTH))
    assert [chunks_of(packet) for _, packet in wire.a.take()] == [[(5, 0, NO_LENGTH)]]
    wire.a.deliver(chunk(HEARTBEAT, bytes(1300)))
    assert wire.a.take() == []
    assert await is_alive(wire)


@given(
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from([*range(15), 130, 192]), st.integers(0, 255)),
            st.integers(0, 255),
            st.binary(max_size=40),
        ),
        max_size=6,
    )
)
@settings(max_examples=300, deadline=None)
def test_arbitrary_chunks_end_the_link_or_leave_it_as_it_was(chunks):
    async def run():
        wire = await Wire().join()
        reported = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, report: reported.append(report))
        for kind, flags, body in chunks:
            wire.a.deliver(chunk(kind, body, flags))
        wire.a.deliver(b"".join(chunk(kind, body, flags) for kind, flags, body in chunks))
        await settle()
        assert reported == []
        assert held_bytes(wire.a) < 100_000
        if not wire.a.closed and wire.a.sctp._association_state is wire.a.sctp.State.ESTABLISHED:
            wire.b.take()
            wire.a.channel.send(b"from here")
            await wire.acknowledge()
            assert wire.b.closed or wire.b.received[-1:] == [b"from here"]

    asyncio.run(run())
