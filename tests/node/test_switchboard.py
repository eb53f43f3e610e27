"""What a node makes of signaling that cannot bring a peer what was sent to it."""

import pytest

from protocol.identity import Identity
from python_node.signaling_events import RelayFailed
from python_node.switchboard import Switchboard

PEER = Identity(bytes([2]) * 32).peer_id


def failed(code):
    return RelayFailed(to=PEER, via="ab" * 32, code=code, message="")


@pytest.fixture
async def made():
    """A switchboard without a session, and the peers that it called unreachable."""
    unreachable = []
    switchboard = Switchboard(
        None,
        Identity(bytes([1]) * 32),
        on_round_message=lambda *_: None,
        on_link=lambda *_: None,
        on_unreachable=unreachable.append,
        lookup=lambda *_: None,
        may_fetch=lambda *_: False,
    )
    yield switchboard, unreachable
    await switchboard.close()


async def test_a_round_waits_no_longer_for_a_peer_that_has_no_session(made):
    switchboard, unreachable = made
    switchboard.handle(failed("peer-offline"))
    assert unreachable == [PEER]


async def test_a_round_still_waits_for_a_peer_whom_an_offer_missed_since_a_newer_cohort_was_named(made):
    switchboard, unreachable = made
    switchboard.handle(failed("not-in-cohort"))
    assert unreachable == []
