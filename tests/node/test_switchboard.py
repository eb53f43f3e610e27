"""What a node makes of signaling that cannot bring a peer what was sent to it."""

import pytest

from protocol.identity import Identity
from protocol.signaling import Member, PeerBack, PeerGone, RoundStart
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


async def test_links_hear_whether_signaling_has_a_session_with_their_peer(made, monkeypatch):
    """By name while a cohort is open, and by who is named in the next."""
    switchboard, _ = made
    heard = []
    for word in ("lost", "regained"):
        monkeypatch.setattr(
            switchboard.mesh, f"signaling_{word}", lambda peer, word=word: heard.append((word, peer)), raising=True
        )
    run, digest = "ab" * 32, "cd" * 32
    start = RoundStart(
        run=run, round=2, attempt=1, round_id=digest, model_digest=digest, members=(Member(peer=PEER),)
    )
    for event in (PeerGone(run=run, peer=PEER), PeerBack(run=run, peer=PEER), PeerGone(run=run, peer=PEER), start):
        switchboard.handle(event)
    assert heard == [("lost", PEER), ("regained", PEER), ("lost", PEER), ("regained", PEER)]
