"""Members and delegates that lie to the signaling server, or come and go at bad moments (spec 08)."""

import itertools

import pytest

from protocol.signaling import (
    MemberSignature,
    Result,
    RoundAborted,
    RoundFailed,
    RoundStart,
    Withdraw,
    codes,
    sign_result,
)
from signaling.errors import RefusedError
from tests.signaling.test_many_cohorts import SUMS, GroupDesk, peers_of


def decided_but_one(desk: GroupDesk) -> tuple[RoundStart, RoundStart]:
    """The first group's sum is known, the second group still works."""
    desk.join()
    first, second = desk.starts(1)[0], desk.starts(1)[1]
    desk.finish_group(first)
    return first, second


def test_member_that_lost_its_groups_sum_is_not_named_as_its_delegate():
    """It signed, then gave up or was restarted: it would refuse, and a level 2 is not tried again."""
    desk = GroupDesk()
    first, second = decided_but_one(desk)
    lost = [member.peer for member in first.members[:3]]
    for peer in lost:
        desk.fail(peer, first)
    desk.finish_group(second)
    assert peers_of(desk.starts(2)[0]).isdisjoint(lost)


def test_member_whose_owner_withdrew_is_not_named_as_a_delegate():
    desk = GroupDesk()
    first, second = decided_but_one(desk)
    withdrawn = [member.peer for member in first.members[:3]]
    for peer in withdrawn:
        desk.do(peer, Withdraw, run=desk.facts.run)
    desk.finish_group(second)
    assert peers_of(desk.starts(2)[0]).isdisjoint(withdrawn)


def test_group_whose_sum_nobody_holds_any_more_is_left_out_at_once():
    desk = GroupDesk(15, cohorts=3)
    first, second = decided_but_one(desk)
    for member in first.members[:4]:
        desk.fail(member.peer, first)
    assert "too few that hold it" in desk.last(RoundAborted, first.members[4].peer).reason
    desk.finish_group(second)
    desk.finish_group(desk.starts(1)[2])
    assert set(desk.starts(2)[0].combining.sources) == {1, 2}


def test_group_that_reports_metrics_is_refused():
    """They concern nobody outside it, and thousands of peers could have the server keep kilobytes each."""
    desk = GroupDesk()
    desk.join()
    start = desk.starts(1)[0]
    peer, metrics = start.members[0].peer, b'{"loss": 0.5}'
    survivors = tuple(range(5))
    signature = sign_result(
        desk.nodes[peer], round_id=start.round_id, model_digest=SUMS[0], survivors=survivors, metrics=metrics
    )
    with pytest.raises(RefusedError, match="metrics") as refused:
        desk.do(
            peer,
            Result,
            run=start.run,
            round=1,
            attempt=1,
            model_digest=SUMS[0],
            survivors=survivors,
            metrics=metrics,
            signatures=(MemberSignature(index=0, signature=signature),),
            place=start.place,
        )
    assert refused.value.code == codes.REFUSED


@pytest.mark.parametrize("level", [1, 2])
def test_survivors_below_the_cohorts_threshold_are_refused(level):
    """No honest peer signs or believes them; a log entry that counts them would stop everybody's catching up."""
    desk = GroupDesk()
    _, second = decided_but_one(desk)
    start = second
    if level == 2:
        desk.finish_group(second)
        start = desk.starts(2)[0]
    fewest = 4 if level == 1 else 3
    with pytest.raises(RefusedError, match=f"expected at least {fewest}"):
        desk.report(start.members[0].peer, start, model=SUMS[1], survivors=tuple(range(fewest - 1)))


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "decided"])
def test_member_that_comes_back_is_not_sent_into_a_group_that_is_over(closed):
    """The others are gone from it: it would wait for them until the deadlines, and miss rounds meanwhile."""
    desk = GroupDesk(15, cohorts=3)
    first, _ = decided_but_one(desk)
    over = desk.starts(1)[2] if closed else first
    if closed:
        desk.fail_group(over)
    back = over.members[-1].peer
    desk.take(desk.registry.disconnected(back, "lost", desk.now))
    desk.connect(back)
    desk.sent.clear()
    desk.join(back)
    assert desk.last(RoundStart, back) is None


def test_member_that_comes_back_while_its_group_works_is_told_again():
    desk = GroupDesk()
    _, second = decided_but_one(desk)
    back = second.members[0].peer
    desk.take(desk.registry.disconnected(back, "lost", desk.now))
    desk.connect(back)
    desk.sent.clear()
    desk.join(back)
    assert desk.last(RoundStart, back) == second


def test_stranger_gives_nothing_up():
    desk = GroupDesk(11)
    desk.join()
    named = peers_of(desk.starts(1)[0]) | peers_of(desk.starts(1)[1])
    (stranger,) = set(desk.nodes) - named
    with pytest.raises(RefusedError) as refused:
        desk.do(stranger, RoundFailed, run=desk.facts.run, round=1, attempt=1, reason="of nobody's concern")
    assert refused.value.code == codes.NOT_IN_COHORT


def test_closed_group_is_told_once():
    desk = GroupDesk(15, cohorts=3)
    first, second = decided_but_one(desk)
    desk.fail_group(desk.starts(1)[2])
    member = desk.starts(1)[2].members[0].peer
    desk.fail_group(second)  # now too few are left, and the attempt ends
    assert first.members[0].peer != member
    told = [m for peer, m in desk.sent if peer == member and isinstance(m, RoundAborted) and m.attempt == 1]
    assert len(told) == 1


@pytest.mark.parametrize("moment", range(6))
def test_no_order_of_departures_leaves_a_run_that_waits_for_ever(moment):
    """Whoever goes, and whenever: a deadline is always ahead while an attempt is open, and time alone ends it."""
    desk = GroupDesk(15, cohorts=3)
    desk.join()
    groups = desk.starts(1)
    steps = [lambda group=group: desk.finish_group(groups[group]) for group in range(3)]
    for step in steps[: moment % 4]:
        step()
    gone = [
        peer for peer, keep in zip(desk.nodes, itertools.cycle([moment > 3, False, True]), strict=False) if not keep
    ]
    for peer in gone:
        desk.take(desk.registry.disconnected(peer, "lost", desk.now))
    for _ in range(40):
        at = desk.registry.next_deadline()
        if at is None:
            break
        assert at > desk.now, "a timer that is due at once, again and again"
        desk.now = at
        desk.take(desk.registry.timer(at))
    assert desk.run.state in ("waiting", "failed")
