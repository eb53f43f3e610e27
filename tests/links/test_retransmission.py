"""How long what was lost is waited for: RFC 9260 §6.3, by a clock that the test moves."""

import itertools

import pytest

from tests.links.wire import Wire

TRIES = 9


async def sent_after(wire, count):
    """Seconds between `count` sendings of one chunk that never arrives."""
    wire.a.take()
    wire.a.channel.send(b"lost")
    while len(wire.a.session.sent) < count:
        await wire.clock.run(0.01)
    times = [at for at, _ in wire.a.take()]
    return [round(after - before, 3) for before, after in itertools.pairwise(times)]


@pytest.fixture
async def wire():
    return await Wire().join()


async def test_a_retransmission_waits_twice_as_long_as_the_one_before_up_to_a_limit(wire):
    waits = await sent_after(wire, TRIES)
    assert waits == [1.0] + [2.0] * (TRIES - 2)


async def measured(wire):
    """Make one round trip, after which the timeout is the least."""
    wire.a.channel.send(b"measured")
    await wire.acknowledge()


async def test_doubling_begins_at_the_timeout_that_was_measured(wire):
    await measured(wire)
    waits = await sent_after(wire, TRIES)
    assert waits == [0.3, 0.6, 1.2] + [2.0] * (TRIES - 4)


async def test_a_new_measurement_ends_the_doubling_and_an_acknowledged_retransmission_does_not(wire):
    await measured(wire)
    await sent_after(wire, 4)
    await wire.clock.run(2.5)
    await wire.acknowledge()
    assert wire.b.received[-1] == b"lost"
    assert not wire.a.sctp._sent_queue
    assert (await sent_after(wire, 3))[0] == 2.0  # Karn: what was sent twice measures nothing
    await wire.clock.run(2.5)
    await wire.acknowledge()
    await measured(wire)
    assert (await sent_after(wire, 3))[0] == 0.3


async def test_a_timeout_measured_above_the_limit_is_not_lowered_by_an_expiry(wire):
    wire.a.sctp._update_rto(2.0)
    first = wire.a.sctp._rto
    assert first == 6.0
    assert await sent_after(wire, 3) == [first, first]
