"""A signaling server that lies about which cohorts a round has: no update ever enters two sums of one attempt."""

import asyncio
import dataclasses

import msgspec
import numpy as np
import pytest

from protocol.cohorts import compute_group_round_id
from protocol.errors import ProtocolError
from protocol.identity import Identity
from protocol.round.jobs import GroupSum
from protocol.secagg.parameters import RoundParameters
from protocol.signaling import Combining, GroupCount, LogEntry, Member, Place, RoundStart, compute_cohort_round_id
from protocol.terms import LocalTraining, RunTerms
from python_node.announcement import HeldSum, check_announcement, delegate_parameters, rival_round_ids
from python_node.signaling_link import SignalingSession

RUN = "5a" * 32
PEERS = sorted(Identity(bytes([number]) * 32).peer_id for number in range(1, 13))
OWN = PEERS[0]
GROUP = tuple(PEERS[:5])
TERMS = RunTerms(
    name="lies",
    plan="11" * 32,
    nonce="22" * 32,
    rounds=4,
    cohort_size=5,
    min_cohort=3,
    min_survivors=3,
    cohorts=3,
    clip=1.0,
    local=LocalTraining(batch_size=8, learning_rate=0.1),
)
HELD = HeldSum(
    round=1,
    attempt=1,
    group=0,
    parameters=RoundParameters(
        run_id=RUN,
        round_id=compute_group_round_id(RUN, 1, 1, 1, 0),
        plan_digest="11" * 32,
        model_digest="33" * 32,
        cohort=GROUP,
        min_survivors=3,
        ring_bits=20,
        value_bits=16,
        replicas=1,
        vector_length=40,
        clip=1.0,
    ),
    total=GroupSum(np.zeros(40, np.int32)),
)
DELEGATES = (PEERS[0], PEERS[1], PEERS[5], PEERS[6])
COMBINING = Combining(
    sources=(0, 0, 1, 1),
    multiplicity=5,
    groups=(GroupCount(group=0, members=5, survivors=5), GroupCount(group=1, members=5, survivors=5)),
)


def announce(place, *, cohort=GROUP, combining=None, attempt=1, round_id=None, number=1) -> RoundStart:
    return RoundStart(
        run=RUN,
        round=number,
        attempt=attempt,
        round_id=round_id or compute_cohort_round_id(RUN, number, attempt, place),
        model_digest="33" * 32,
        members=tuple(Member(peer=peer) for peer in cohort),
        place=place,
        combining=combining,
    )


def delegates(cohort=DELEGATES, **changes) -> RoundStart:
    fields = {"sources": COMBINING.sources, "multiplicity": 5, "groups": COMBINING.groups, **changes}
    return announce(Place(level=2, group=0), cohort=cohort, combining=Combining(**fields))


def test_honest_announcements_pass():
    assert check_announcement(announce(None), terms=TERMS, own=OWN) == GROUP
    assert check_announcement(announce(Place(level=1, group=2)), terms=TERMS, own=OWN) == GROUP
    start = delegates()
    cohort = check_announcement(start, terms=TERMS, own=OWN)
    parameters = delegate_parameters(start, HELD, cohort=cohort, own=OWN, terms=TERMS)
    assert (parameters.sources, parameters.multiplicity, parameters.ring_bits) == ((0, 0, 1, 1), 5, 32)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (announce(Place(level=1, group=3)), "level 1 group 3 without groups to combine, terms say 3 cohorts"),
        (announce(Place(level=2, group=1), combining=COMBINING, cohort=DELEGATES), "level 2 group 1 with groups"),
        (announce(Place(level=2, group=0), cohort=DELEGATES), "level 2 group 0 without groups"),
        (announce(Place(level=1, group=0), combining=COMBINING), "level 1 group 0 with groups"),
        (announce(None, combining=COMBINING), "no place with groups"),
        (announce(Place(level=1, group=1), round_id=compute_group_round_id(RUN, 1, 1, 1, 0)), "is not that of the"),
        (announce(Place(level=1, group=0), cohort=PEERS[:6]), "a cohort of 6, terms say 3 to 5"),
        (announce(Place(level=1, group=0), cohort=PEERS[1:5]), "without this peer"),
        (announce(Place(level=1, group=0), attempt=7), "attempt 7 at round 1, terms say 6 at most"),
    ],
)
def test_announcement_that_terms_do_not_allow_is_refused(start, words):
    with pytest.raises(ProtocolError, match=words):
        check_announcement(start, terms=TERMS, own=OWN)


def test_places_are_refused_where_terms_ask_for_one_cohort():
    one = msgspec.structs.replace(TERMS, cohorts=1)
    with pytest.raises(ProtocolError, match="level 1 group 0 without groups to combine, terms say 1 cohorts"):
        check_announcement(announce(Place(level=1, group=0)), terms=one, own=OWN)


@pytest.mark.parametrize(
    ("start", "held", "words"),
    [
        (delegates(), None, "this node holds no group's sum of that attempt"),
        (delegates(), dataclasses.replace(HELD, attempt=2), "this node holds no group's sum of that attempt"),
        (delegates(), dataclasses.replace(HELD, round=2), "this node holds no group's sum of that attempt"),
        (delegates(sources=(1, 1, 0, 0)), HELD, "named for group 1, this node was in group 0"),
        (delegates(sources=(0, 0, 1, 3)), HELD, "terms say 3 cohorts"),
        (delegates(sources=(0, 0, 1)), HELD, "for 4 delegates"),
        (delegates(multiplicity=4), HELD, "groups of 4 peers at most, this node's had 5"),
        (delegates(multiplicity=6), HELD, "groups of 6 peers at most"),
        # an outsider speaks for this node's group, so it could put another sum in its place
        (delegates(cohort=(PEERS[0], PEERS[5], PEERS[6], PEERS[7])), HELD, "speaks for group 0 but was not in it"),
        # a member of this node's group speaks for another: its sum could count twice
        (delegates(sources=(0, 1, 1, 1)), HELD, "of group 0 speaks for group 1"),
    ],
)
def test_delegation_that_does_not_fit_the_own_group_is_refused(start, held, words):
    with pytest.raises(ProtocolError, match=words):
        delegate_parameters(start, held, cohort=tuple(m.peer for m in start.members), own=OWN, terms=TERMS)


def test_every_cohort_that_sums_updates_is_a_rival_of_every_other():
    """Whatever a node joined first in an attempt, nothing else that sums updates is joined in it."""
    starts = [announce(None), *(announce(Place(level=1, group=group)) for group in range(3))]
    rivals = {start.round_id: set(rival_round_ids(start, TERMS)) for start in starts}
    assert all(others == set(rivals) for others in rivals.values())
    top = delegates()
    assert rival_round_ids(top, TERMS) == (top.round_id,)
    assert top.round_id not in rivals
    later = announce(Place(level=1, group=0), attempt=2)
    assert set(rival_round_ids(later, TERMS)).isdisjoint(rivals)


async def test_node_named_in_a_second_group_of_the_same_attempt_does_not_join(world, plan):
    host = await world.node("node-0")
    author = await world.author()
    run = (await world.publish(author, plan, cohorts=2)).run
    await host.diary.until("ready", run=run)
    strangers = PEERS[:2]
    cohort = sorted([host.peer, *strangers])

    def named(place):
        return RoundStart(
            run=run,
            round=1,
            attempt=1,
            round_id=compute_cohort_round_id(run, 1, 1, place),
            model_digest=host.model(run)[1],
            members=tuple(Member(peer=peer) for peer in cohort),
            place=place,
        )

    first = named(Place(level=1, group=0))
    host.state.record(first.round_id, "joined", "")  # as after any start of the attempt, even before a restart

    for place in (Place(level=1, group=1), None):
        host.node._handle(named(place))
        refused = await host.diary.until("round_failed", run=run)
        assert f"joined round id {first.round_id[:8]} before" in refused.fields["reason"]
        host.diary.events.clear()
        assert host.state.entries(named(place).round_id) == []


async def test_node_remembers_its_group_of_every_attempt_of_the_round(world, plan):
    """Else signaling only has to name another attempt, and outsiders could have spoken for the group."""
    host = await world.node("node-0")
    author = await world.author()
    run = (await world.publish(author, plan, cohorts=2)).run
    await host.diary.until("ready", run=run)
    cohort = sorted([host.peer, *PEERS[:2]])
    for attempt in (1, 2):
        start = announce(Place(level=1, group=0), cohort=cohort, attempt=attempt)
        round_id = compute_cohort_round_id(run, 1, attempt, start.place)
        host.node._handle(msgspec.structs.replace(start, run=run, round_id=round_id, model_digest=host.model(run)[1]))
        await host.diary.until("round_started", run=run, attempt=attempt)
    membership = host.node._runs[run].membership

    def entry(attempt, delegates):
        return LogEntry(
            run=run,
            round=1,
            attempt=attempt,
            round_id="00" * 32,
            cohort=tuple(sorted(delegates)),
            survivors=(0, 1, 2, 3),
            previous_digest="00" * 32,
            model_digest="11" * 32,
            metrics=b"",
            signatures=(),
            seconds=1.0,
            logged_at=1.0,
            combining=COMBINING,
        )

    for attempt in (1, 2):
        with pytest.raises(ProtocolError, match="speaking for group 0"):
            membership.check_delegates(entry(attempt, PEERS[5:9]))
    membership.check_delegates(entry(3, PEERS[5:9]))
    membership.hold(1, membership.model, membership.digest)
    with pytest.raises(ProtocolError, match="speaking for group 0"):
        membership.check_delegates(entry(1, PEERS[5:9]))  # another result of the same round may still be logged
    membership.hold(2, membership.model, membership.digest)
    membership.check_delegates(entry(1, PEERS[5:9]))  # nothing is kept of rounds that are over


async def test_group_that_was_given_up_is_given_up_again_when_signaling_forgot(world, plan, monkeypatch):
    """A restarted signaling server has the group open again, and would wait for it until the deadlines."""
    reported = asyncio.Queue()

    async def round_failed(_session, run, **fields):
        reported.put_nowait((run, fields["place"], fields["reason"]))

    monkeypatch.setattr(SignalingSession, "round_failed", round_failed)
    host = await world.node("node-0")
    author = await world.author()
    run = (await world.publish(author, plan, cohorts=2)).run
    await host.diary.until("ready", run=run)
    place = Place(level=1, group=0)
    start = msgspec.structs.replace(
        announce(place, cohort=sorted([host.peer, *PEERS[:2]])),
        run=run,
        round_id=compute_cohort_round_id(run, 1, 1, place),
        model_digest=host.model(run)[1],
    )
    host.node._handle(start)
    await host.diary.until("round_started", run=run)
    host.node._runs[run].membership.abort(start.round_id, "the test ends it")
    async with asyncio.timeout(120):
        first = await reported.get()
        assert first == (run, place, "the test ends it")
        host.node._handle(start)
        assert await reported.get() == first
