"""Data in any order and of any form: what is kept of it, offered and acknowledged, and where that ends."""

import asyncio
import itertools
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.links.wire import (
    CHANNEL_OPEN,
    FIRST,
    FORWARD_TSN,
    LAST,
    PACKET_BYTES,
    TEXT,
    UNORDERED,
    Wire,
    chunk,
    data,
    data_sent,
    held_bytes,
    is_alive,
    last_sack,
    next_tsn,
    sack,
)


@pytest.fixture
async def wire():
    return await Wire().join()


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
