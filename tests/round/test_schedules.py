"""Random schedules with faults and liars; an observer checks the invariants after every event.

`PEERPLAN_SCHEDULES=20000 pytest tests/round/test_schedules.py -k soak` runs the long form, from seed
`PEERPLAN_SCHEDULES_FROM` (0).
"""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.round import liars
from tests.round.schedules import Plan, Schedule, random_plan

_COUNT = int(os.environ.get("PEERPLAN_SCHEDULES", "600"))
_FROM = int(os.environ.get("PEERPLAN_SCHEDULES_FROM", "0"))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    n = draw(st.integers(3, 7))
    lies = draw(st.lists(st.tuples(st.just(draw(st.integers(0, n - 1))), st.sampled_from(liars.LIES)), max_size=3))
    return Plan(
        seed=draw(st.integers(0, 2**32)),
        n=n,
        replicas=draw(st.integers(1, 2)),
        lies=tuple(lies),
        kills=draw(st.integers(0, 2)),
        cuts=draw(st.integers(0, 3)),
        partition=draw(st.booleans()),
        duplicates=draw(st.sampled_from([0.0, 0.1])),
        corruption=draw(st.sampled_from([0.0, 0.05])),
        in_order=draw(st.booleans()),
    )


@settings(max_examples=200)
@given(plans())
def test_invariants_hold_under_any_schedule(plan: Plan) -> None:
    Schedule(plan).play()


@pytest.mark.timeout(0)
def test_soak_of_random_schedules_keeps_the_invariants() -> None:
    revealed = completed = 0
    for seed in range(_FROM, _FROM + _COUNT):
        schedule = Schedule(random_plan(seed))
        try:
            schedule.play()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {schedule.plan}: {error}") from error
        revealed += schedule.observer.aggregates
        completed += sum(m.completed is not None for m in schedule.members)
    # schedules that all fail early would prove nothing
    assert revealed > _COUNT
    assert completed > _COUNT


@given(
    st.integers(0, 2**32),
    st.integers(3, 7),
    st.sampled_from([0.0, 0.2]),
    st.integers(1, 2),
)
@example(seed=11726, n=3, duplicates=0.2, replicas=1)
@settings(max_examples=40)
def test_without_faults_everybody_completes_in_any_order(seed: int, n: int, duplicates: float, replicas: int) -> None:
    schedule = Schedule(Plan(seed=seed, n=n, duplicates=duplicates, replicas=replicas))
    schedule.play()
    assert all(m.completed is not None for m in schedule.members)
    reasons = [fault.reason for m in schedule.members for fault in m.faults]
    # of what comes twice only a question can come too often
    assert all(duplicates and "asked for the same thing more than" in reason for reason in reasons)
    assert schedule.members[0].completed.survivors == frozenset(range(n))


@given(st.integers(0, 2**32), st.sampled_from([5, 6, 7]), st.integers(0, 6), st.sampled_from(liars.LIES))
@settings(max_examples=150)
def test_one_liar_among_live_peers_never_splits_the_model(seed: int, n: int, liar: int, lie: str) -> None:
    schedule = Schedule(Plan(seed=seed, n=n, lies=((liar % n, lie),), in_order=True))
    schedule.play()
    digests = {m.completed.model_digest for m in schedule.members if m.completed is not None}
    assert len(digests) <= 1


@pytest.mark.parametrize("lie", liars.LIES)
def test_every_lie_of_the_schedules_is_told(lie: str) -> None:
    """A lie that never changes a byte would make the schedules empty words."""
    told = 0
    for seed in range(20):
        schedule = Schedule(Plan(seed=seed, n=5, lies=((seed % 5, lie),), cuts=3))
        schedule.play()
        told += schedule.lies_told
    assert told
