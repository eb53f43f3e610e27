"""Who is ready, who is waited for, and how many are looked at to know."""

from protocol.signaling.base import Member
from signaling.participants import Participants
from signaling.run_phases import Peers

MANY, FEWEST = 500, 10


class Asked:
    """Everybody is online and free; counts how often somebody asks."""

    def __init__(self) -> None:
        self.times = 0
        self.away: set[str] = set()
        self.peers = Peers(online=self.online, member=lambda peer: Member(peer=peer), busy=lambda *_: False)

    def online(self, peer: str) -> bool:
        self.times += 1
        return peer not in self.away


def crowd(asked: Asked) -> Participants:
    made = Participants("aa" * 32, asked.peers)
    for number in range(MANY):
        made.consents(f"{number:064x}", None, waits=True)
    return made


def test_thousands_that_become_ready_one_by_one_are_not_all_looked_at_each_time():
    """Looking at all of them after each message kept the server of 2,048 peers from answering for seconds."""
    asked = Asked()
    participants = crowd(asked)
    for peer in list(participants.accepted):
        participants.holds(peer, 3)
        participants.enough(FEWEST, 3)
        full = participants.enough(MANY, 3)
        next(participants.awaited(), None)
    assert full
    assert asked.times <= MANY * (FEWEST + 1) + MANY
    assert participants.ready(3) == list(participants.accepted)


def test_enough_counts_who_is_there_and_free_and_holds_this_very_model():
    asked = Asked()
    participants = crowd(asked)
    peers = list(participants.accepted)
    for peer in peers[:12]:
        participants.holds(peer, 1)
    for peer in peers[:3]:
        participants.holds(peer, 2)
    assert participants.enough(9, 1)
    assert not participants.enough(10, 1)
    assert participants.enough(3, 2)
    assert participants.holders(1) == tuple(peers[3:12])
    asked.away.add(peers[4])
    assert not participants.enough(9, 1)
    participants.forget(peers[5])
    assert participants.ready(1) == [peers[3], *peers[6:12]]
    participants.holds("ff" * 32, 1)  # who did not consent
    assert "ff" * 32 not in participants.holders(1)


def test_patience_with_those_left_out_ends():
    asked = Asked()
    participants = crowd(asked)
    first, second, *_ = participants.accepted
    for peer in (first, second):
        participants.holds(peer, 1)
    participants.left_out((first,), 1)
    waited = set(participants.accepted) - {first}
    assert set(participants.awaited()) == waited
    participants.lose_patience()
    participants.lose_patience()
    assert list(participants.awaited()) == []
    participants.fetches(second, 2)
    assert list(participants.awaited()) == [], "asking again earns nothing"
    participants.holds(second, 2)
    participants.left_out((first,), 2)
    assert list(participants.awaited()) == [second]
