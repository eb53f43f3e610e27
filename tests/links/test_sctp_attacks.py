"""What a peer may do that has proved who it is: every packet here comes over the DTLS session of an open link."""

import asyncio
import itertools
import random
import struct

import aiortc.rtcsctptransport as library
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.links.wire import Wire, chunks_of, settle

DATA, INIT, INIT_ACK, SACK, HEARTBEAT, ABORT, SHUTDOWN, ERROR = 0, 1, 2, 3, 4, 6, 7, 9
COOKIE_ECHO, RECONFIG, FORWARD_TSN = 10, 130, 192
FIRST, LAST, UNORDERED = 2, 1, 4
BINARY, TEXT, CHANNEL_OPEN = 53, 51, 50
PACKET_BYTES = 1189


def chunk(kind, body=b"", flags=0):
    return struct.pack("!BBH", kind, flags, 4 + len(body)) + body + bytes(-len(body) % 4)


def data(tsn, payload=b"x", *, flags=FIRST | LAST, stream=0, protocol=BINARY):
    return chunk(DATA, struct.pack("!LHHL", tsn % 2**32, stream, 0, protocol) + payload, flags)


def sack(cumulative, *gaps, window=1 << 20):
    head = struct.pack("!LLHH", cumulative % 2**32, window, len(gaps), 0)
    return chunk(SACK, head + b"".join(struct.pack("!HH", *gap) for gap in gaps))


@pytest.fixture
async def wire():
    return await Wire().join()


def next_tsn(wire):
    return (wire.a.sctp._last_received_tsn + 1) % 2**32


async def is_alive(wire):
    """Whether both directions still carry messages."""
    for sender, receiver in ((wire.a, wire.b), (wire.b, wire.a)):
        sender.channel.send(b"still here")
        await wire.acknowledge()
        if receiver.received[-1:] != [b"still here"]:
            return False
    return True


def held_bytes(end):
    """What a side keeps of messages that are not complete, its bookkeeping included."""
    sctp = end.sctp
    kept = sum(100 + len(held[-1]) for held in sctp._held.values()) + len(sctp._partial or b"")
    return kept + 40 * len(sctp._sack_duplicates) + 300 * len(sctp._inbound_streams)


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


def data_sent(end):
    return [body for _, packet in end.take() for kind, _, body in chunks_of(packet) if kind == DATA]


@pytest.mark.parametrize("window", [0, 1, 1160])
async def test_a_window_of_nothing_gets_one_chunk_at_a_time_and_what_it_opens_to_gets_the_rest(wire, window):
    sent = 0
    wire.a.channel.send(bytes(50_000))
    for _ in range(20):
        chunks = data_sent(wire.a)
        assert len(chunks) <= (1 if sent else 10)
        sent += len(chunks)
        wire.a.deliver(sack(wire.a.sctp._last_sacked_tsn + len(chunks), window=window))
    chunks = data_sent(wire.a)
    assert len(chunks) == 1
    wire.a.deliver(sack(wire.a.sctp._last_sacked_tsn + 1))
    assert len(data_sent(wire.a)) > 10


async def test_a_message_that_no_window_fits_arrives(wire):
    wire.b.sctp._held_bytes = (1 << 20) - 3000  # so it offers 3000 bytes
    wire.a.channel.send(bytes(50_000))
    await wire.acknowledge()
    assert wire.b.received == [bytes(50_000)]


async def test_a_peer_that_talks_and_acknowledges_nothing_is_given_up(wire):
    """Its frames would keep the link alive for ever, and what it does not take would wait here."""
    wire.a.channel.send(b"never acknowledged")
    heard = itertools.count(next_tsn(wire))
    while not wire.a.closed:
        wire.a.deliver(data(next(heard)))
        await wire.clock.run(0.5)
        assert len(wire.a.received) < 100
    assert "10 times" in wire.a.sctp.refusal
    assert len(wire.a.received) > 20


async def test_acknowledgements_between_count_retransmissions_anew(wire):
    for _ in range(4):
        wire.a.channel.send(b"late")
        await wire.clock.run(8)
        wire.a.deliver(sack(wire.a.sctp._local_tsn - 1))
    assert not wire.a.closed
    wire.a.take()
    wire.b.sctp._last_received_tsn = wire.a.sctp._local_tsn - 1
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


@pytest.mark.parametrize("size", [1, 2, 100, 1172])
async def test_a_message_without_end_ends_the_link_before_it_fills_memory(wire, size):
    first = next_tsn(wire)
    numbers = itertools.count()
    most = 0
    while not wire.a.closed:
        room = 1100 // (16 + size + 3) or 1
        parts = [data(first + n, bytes(size), flags=FIRST if not n else 0) for n in itertools.islice(numbers, room)]
        wire.a.deliver(b"".join(parts))
        most = max(most, held_bytes(wire.a))
        wire.a.take()
    assert most <= 262_144 + PACKET_BYTES
    assert "262144" in wire.a.sctp.refusal


@pytest.mark.parametrize("flags", [0, FIRST, FIRST | LAST, UNORDERED])
@pytest.mark.parametrize("step", [1, 2, 65_000])
async def test_data_ahead_of_what_is_missing_is_kept_up_to_a_bound(wire, flags, step):
    """Tiny chunks cost the most memory per byte. What is beyond the bound is not acknowledged and so comes again."""
    first = next_tsn(wire)
    for packet in range(300):
        tsns = [first + 1 + step * (50 * packet + n) for n in range(50)]
        wire.a.deliver(b"".join(data(tsn, flags=flags) for tsn in tsns))
        assert all(len(sent) <= PACKET_BYTES for _, sent in wire.a.take())
    assert 0 < len(wire.a.sctp._held) <= 2048
    assert held_bytes(wire.a) < 1 << 20
    assert wire.a.sctp._last_received_tsn == (first - 1) % 2**32


def last_sack(end):
    """Window, gap blocks and duplicates of the last acknowledgement."""
    packet = end.take()[-1][1]
    assert len(packet) <= PACKET_BYTES
    body = next(body for kind, _, body in chunks_of(packet) if kind == SACK)
    _, window, gaps, duplicates = struct.unpack_from("!LLHH", body)
    blocks = [struct.unpack_from("!HH", body, 12 + 4 * n) for n in range(gaps)]
    return window, blocks, [struct.unpack_from("!L", body, 12 + 4 * (gaps + n))[0] for n in range(duplicates)]


async def test_what_is_kept_is_no_longer_offered_and_what_came_twice_is_said(wire):
    first = next_tsn(wire)
    wire.a.deliver(data(first, bytes(1000), flags=FIRST) + data(first + 2, bytes(100), flags=LAST))
    assert last_sack(wire.a) == ((1 << 20) - 1100, [(2, 2)], [])
    wire.a.deliver(data(first + 2, bytes(100), flags=LAST) + data(first, bytes(1000), flags=FIRST))
    assert last_sack(wire.a) == ((1 << 20) - 1100, [(2, 2)], [(first + 2) % 2**32, first])
    wire.a.deliver(data(first + 1, b"x", flags=0))
    assert last_sack(wire.a) == (1 << 20, [], [])
    assert wire.a.received == [bytes(1000) + b"x" + bytes(100)]
    wire.a.deliver(data(first + 3, bytes(1000), flags=FIRST) + data(first + 4, bytes(1000), flags=0))
    assert last_sack(wire.a) == ((1 << 20) - 2000, [], [])


async def test_an_acknowledgement_of_the_most_gaps_and_repeats_fits_into_a_packet(wire):
    first = next_tsn(wire)
    for n in range(300):
        wire.a.deliver(data(first + 1 + 2 * n))
    wire.a.take()
    wire.a.deliver(b"".join(data(first + 1 + 2 * n) for n in range(70)))
    _, gaps, duplicates = last_sack(wire.a)
    assert gaps == [(2 + 2 * n, 2 + 2 * n) for n in range(256)]
    assert duplicates == [(first + 1 + 2 * n) % 2**32 for n in range(32)]


async def test_messages_behind_a_flood_of_others_arrive(wire):
    """The bound is reached; what was beyond it is sent again, and all comes in order, once."""
    first = next_tsn(wire)
    expected = [str(n).encode() for n in range(5000)]
    for n in [*range(1, 5000), 0]:
        wire.a.deliver(data(first + n, expected[n]))
        wire.a.take()
    assert wire.a.received == expected[:2049]
    for n in range(5000):
        wire.a.deliver(data(first + n, expected[n]))
    assert wire.a.received == expected
    assert not wire.a.sctp._held


@given(st.integers(), st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32 - 40, 2**32 - 1)))
@settings(max_examples=60, deadline=None)
def test_any_order_with_repeats_gives_the_messages_in_order(seed, start):
    order = random.Random(seed)

    async def run():
        wire = await Wire().join()
        wire.a.sctp._last_received_tsn = (start - 1) % 2**32
        messages = [order.randbytes(order.choice([1, 5, 3000])) for _ in range(20)]
        chunks, tsn = [], start
        for message in messages:
            parts = [message[at : at + 1000] for at in range(0, len(message), 1000)]
            for n, part in enumerate(parts):
                flags = (FIRST if not n else 0) | (LAST if n == len(parts) - 1 else 0)
                chunks.append(data(tsn, part, flags=flags))
                tsn += 1
        shuffled = chunks + order.sample(chunks, 10)
        order.shuffle(shuffled)
        for one in shuffled:
            wire.a.deliver(one)
        assert wire.a.received == messages
        assert wire.a.sctp._last_received_tsn == (tsn - 1) % 2**32
        assert held_bytes(wire.a) <= 40 * 32

    asyncio.run(run())


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        (lambda tsn: data(tsn, stream=1), "stream 1"),
        (lambda tsn: data(tsn, b"\3" + bytes(11), protocol=CHANNEL_OPEN, stream=2), "stream 2"),
        (lambda tsn: data(tsn, b"\3" + bytes(11), protocol=CHANNEL_OPEN), "protocol 50"),
        (lambda tsn: data(tsn, b"\xff\xfe", protocol=TEXT), "protocol 51"),
        (lambda tsn: data(tsn, flags=LAST), "beginning"),
        (lambda tsn: data(tsn, flags=FIRST) + data(tsn + 1, flags=FIRST), "before the last one ended"),
        (lambda tsn: data(tsn, flags=FIRST) + data(tsn + 1, flags=LAST, stream=3), "stream 3"),
        (lambda tsn: chunk(FORWARD_TSN, struct.pack("!LHH", tsn + 9, 0, 3)), "FORWARD TSN"),
    ],
)
async def test_what_the_one_channel_does_not_carry_ends_the_link(wire, chunks, words):
    wire.a.deliver(chunks(next_tsn(wire)))
    assert wire.a.closed
    assert words in wire.a.sctp.refusal
    assert wire.a.received == []
    assert len(wire.a.sctp._data_channels) == len(wire.a.sctp._inbound_streams) == 0


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
