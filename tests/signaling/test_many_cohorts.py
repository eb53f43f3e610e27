"""Rounds of several cohorts in the registry: groups, delegates, failures and restarts (spec 08 §5)."""

import dataclasses

import pytest

from protocol.signaling import (
    MemberSignature,
    Place,
    Result,
    RoundAborted,
    RoundFailed,
    RoundLogged,
    RoundStart,
    codes,
    sign_result,
)
from signaling.errors import RefusedError
from signaling.grouped_attempt import GroupedAttempt
from signaling.run_phases import Working
from tests.signaling.test_registry import MODEL, Desk

SUMS = ["a0" * 32, "a1" * 32, "a2" * 32, "a3" * 32]
NEXT = "ee" * 32


class GroupDesk(Desk):
    """Ten peers, two cohorts of five, unless told otherwise."""

    def __init__(self, count: int = 10, *, cohorts: int = 2, **changes) -> None:
        given = {"cohort_size": 5, "min_cohort": 3, "min_survivors": 3, **changes}
        super().__init__(count, cohorts=cohorts, **given)

    def starts(self, level: int) -> dict[int, RoundStart]:
        """The latest announcement of each cohort of a level."""
        latest = {}
        for _, message in self.sent:
            if isinstance(message, RoundStart) and message.place is not None and message.place.level == level:
                latest[message.place.group] = message
        return latest

    def finish_group(self, start: RoundStart, *, but: int = 0) -> None:
        """All members, but the first few, report the group's sum."""
        for member in start.members[but:]:
            self.report(member.peer, start, model=SUMS[start.place.group])

    def report(self, peer, start, *, model=NEXT, survivors=None, place=None) -> None:
        cohort = [member.peer for member in start.members]
        survivors = tuple(range(len(cohort))) if survivors is None else survivors
        signature = sign_result(
            self.nodes[peer], round_id=start.round_id, model_digest=model, survivors=survivors, metrics=b""
        )
        self.do(
            peer,
            Result,
            run=start.run,
            round=start.round,
            attempt=start.attempt,
            model_digest=model,
            survivors=survivors,
            metrics=b"",
            signatures=(MemberSignature(index=cohort.index(peer), signature=signature),),
            place=place or start.place,
        )

    def fail(self, peer, start) -> None:
        self.do(
            peer,
            RoundFailed,
            run=start.run,
            round=start.round,
            attempt=start.attempt,
            reason="the test ends it",
            place=start.place,
        )

    def fail_group(self, start: RoundStart) -> None:
        for member in start.members[:3]:
            self.fail(member.peer, start)


def peers_of(start: RoundStart) -> set[str]:
    return {member.peer for member in start.members}


def test_round_goes_from_groups_to_delegates_to_the_log():
    desk = GroupDesk()
    desk.join()
    groups = desk.starts(1)
    assert sorted(groups) == [0, 1]
    assert peers_of(groups[0]).isdisjoint(peers_of(groups[1]))
    desk.finish_group(groups[0])
    assert desk.starts(2) == {}, "no delegates before the other group's sum is known"
    desk.finish_group(groups[1])

    top = desk.starts(2)[0]
    assert len(top.members) == 4
    assert top.combining.multiplicity == 5
    for member, source in zip(top.members, top.combining.sources, strict=True):
        assert member.peer in peers_of(groups[source])
    for member in top.members:
        desk.report(member.peer, top)

    entry = desk.last(RoundLogged).entry
    assert (entry.round_id, entry.model_digest) == (top.round_id, NEXT)
    assert entry.peers() == (10, 10)
    assert set(desk.run.holders()) == peers_of(top), "the others fetch the model from delegates"


def test_next_round_waits_for_those_who_fetch_the_model_but_not_for_ever():
    desk = GroupDesk()
    desk.join()
    for start in desk.starts(1).values():
        desk.finish_group(start)
    top = desk.starts(2)[0]
    for member in top.members:
        desk.report(member.peer, top)
    assert desk.last(RoundStart).round == 1
    rest = [peer for peer in desk.nodes if peer not in peers_of(top)]
    for peer in rest[:-1]:
        desk.join(peer)
    assert desk.last(RoundStart).round == 1
    desk.pass_time(desk.registry._timing.join_s)
    assert desk.last(RoundStart).round == 2
    named = set().union(*(peers_of(start) for start in desk.starts(1).values()))
    assert rest[-1] not in named
    assert len(named) == 9


def test_one_cohorts_worth_of_peers_makes_a_plain_round():
    desk = GroupDesk(5)
    desk.join()
    desk.pass_time(10)
    start = desk.last(RoundStart)
    assert start.place is None
    assert len(start.members) == 5


def test_group_that_fails_is_left_out_and_told_alone():
    desk = GroupDesk(15, cohorts=3)
    desk.join()
    groups = desk.starts(1)
    desk.fail_group(groups[1])
    told = {peer for peer, message in desk.sent if isinstance(message, RoundAborted)}
    assert told == peers_of(groups[1])
    assert desk.last(RoundAborted).place == Place(level=1, group=1)
    desk.finish_group(groups[0])
    desk.finish_group(groups[2])
    assert set(desk.starts(2)[0].combining.sources) == {0, 2}


def test_silent_group_is_left_out_when_its_deadlines_are_over():
    desk = GroupDesk(15, cohorts=3)
    desk.join()
    groups = desk.starts(1)
    desk.finish_group(groups[0])
    desk.finish_group(groups[1])
    assert desk.starts(2) == {}
    desk.pass_time(desk.run._allowed_s())
    assert set(desk.starts(2)[0].combining.sources) == {0, 1}
    late = groups[2].members[0].peer
    desk.report(late, groups[2], model=SUMS[2])  # acknowledged, and changes nothing
    assert set(desk.starts(2)[0].combining.sources) == {0, 1}


def test_one_group_alone_is_not_combined_and_all_try_again():
    desk = GroupDesk()
    desk.join()
    groups = desk.starts(1)
    desk.finish_group(groups[0])
    desk.fail_group(groups[1])
    again = desk.starts(1)
    assert {start.attempt for start in again.values()} == {2}
    assert desk.starts(2) == {}
    assert {start.round_id for start in again.values()}.isdisjoint({start.round_id for start in groups.values()})


def test_second_level_is_never_repeated_in_the_same_attempt():
    desk = GroupDesk()
    desk.join()
    for start in desk.starts(1).values():
        desk.finish_group(start)
    top = desk.starts(2)[0]
    for member in top.members[:2]:
        desk.fail(member.peer, top)
    assert desk.starts(2)[0].attempt == 1
    assert {start.attempt for start in desk.starts(1).values()} == {2}


def test_delegates_are_peers_that_are_online_and_signed():
    desk = GroupDesk()
    desk.join()
    groups = desk.starts(1)
    gone = groups[0].members[0].peer
    desk.finish_group(groups[0])
    desk.take(desk.registry.disconnected(gone, "lost", desk.now))
    desk.finish_group(groups[1], but=1)
    delegates = peers_of(desk.starts(2)[0])
    assert gone not in delegates
    assert groups[1].members[0].peer not in delegates


@pytest.mark.parametrize(
    "place", [None, Place(level=1, group=1), Place(level=1, group=9), Place(level=2, group=0)], ids=str
)
def test_result_for_another_cohort_is_refused(place):
    desk = GroupDesk()
    desk.join()
    start = desk.starts(1)[0]
    peer = start.members[0].peer
    signature = sign_result(
        desk.nodes[peer], round_id=start.round_id, model_digest=SUMS[0], survivors=(0, 1, 2), metrics=b""
    )
    with pytest.raises(RefusedError) as refused:
        desk.do(
            peer,
            Result,
            run=start.run,
            round=1,
            attempt=1,
            model_digest=SUMS[0],
            survivors=(0, 1, 2),
            metrics=b"",
            signatures=(MemberSignature(index=0, signature=signature),),
            place=place,
        )
    assert refused.value.code == codes.NOT_IN_COHORT


def test_members_relay_within_their_group_and_delegates_across():
    desk = GroupDesk()
    desk.join()
    groups = desk.starts(1)
    for start in groups.values():
        desk.finish_group(start)
    top = desk.starts(2)[0]
    mine, other = sorted(peers_of(groups[0])), sorted(peers_of(groups[1]))
    delegates = sorted(peers_of(top))
    assert desk.registry._same_cohort(groups[0].round_id, mine[0], mine[1])
    assert not desk.registry._same_cohort(groups[0].round_id, mine[0], other[0])
    assert desk.registry._same_cohort(top.round_id, delegates[0], delegates[-1])
    outsider = next(peer for peer in mine if peer not in delegates)
    assert not desk.registry._same_cohort(top.round_id, outsider, delegates[0])


@pytest.mark.parametrize("level", [1, 2])
def test_restart_in_either_level_goes_on_with_repeated_results(level):
    desk = GroupDesk()
    desk.join()
    groups = desk.starts(1)
    if level == 2:
        for start in groups.values():
            desk.finish_group(start)
    before = desk.run.phase
    assert isinstance(before, Working)
    kept = before.attempt
    restored = GroupedAttempt(
        tuple(dataclasses.replace(group, _results={}, _signatures={}) for group in kept.groups),
        None if kept.top is None else dataclasses.replace(kept.top, _results={}, _signatures={}),
    )
    for peer in desk.nodes:
        desk.take(desk.registry.disconnected(peer, "lost", desk.now))
    machine = desk.registry.restore_run(desk.facts, MODEL)
    machine.restore([restored], state="running", reason="", now=desk.now)
    for peer in desk.nodes:
        desk.connect(peer)
        desk.join(peer)
    if level == 1:
        for start in groups.values():
            desk.finish_group(start)
    top = desk.starts(2)[0]
    for member in top.members:
        desk.report(member.peer, top)
    assert desk.last(RoundLogged).entry.attempt == 1


def test_told_again_after_a_reconnect_is_the_latest_cohort():
    desk = GroupDesk()
    desk.join()
    for start in desk.starts(1).values():
        desk.finish_group(start)
    top = desk.starts(2)[0]
    peer = top.members[0].peer
    desk.take(desk.registry.disconnected(peer, "lost", desk.now))
    desk.connect(peer)
    desk.sent.clear()
    desk.join(peer)
    assert desk.last(RoundStart, peer) == top
