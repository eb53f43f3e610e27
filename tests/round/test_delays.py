"""One peer that holds messages back, from some or until just before a deadline, costs the others time and no more."""

from __future__ import annotations

import random

import pytest

from tests.round.delays import SUM, DelayedNetwork, Hold, Plan, leader_of, random_plan

PLANS = 20


@pytest.mark.parametrize("place", range(7))
def test_one_peer_that_holds_messages_back_costs_the_others_time_alone(place: int) -> None:
    """By places after the first leader; sums are the other test's."""
    liar = (leader_of(7) + place) % 7
    for seed in range(PLANS):
        drawn = random_plan(7, frozenset({liar}), random.Random(f"{place} {seed}"))
        plan = Plan(7, {key: hold for key, hold in drawn.holds.items() if key[1] != SUM})
        network = DelayedNetwork(plan)
        network.play()
        assert [m.failed for m in network.honest()] == [None] * len(network.honest()), (seed, plan)


def test_sum_that_some_get_in_the_moment_it_is_given_up_never_makes_two_models() -> None:
    """What one owner can still do (docs/security/p2psa-1.md, not promised)."""
    head = leader_of(7)
    ends = set()
    for owner in range(7):
        for served in range(1, 7):
            others = [i for i in range(7) if i != owner]
            kept_from = frozenset({head, *others[served:]}) - {owner}
            network = DelayedNetwork(Plan(7, {(owner, SUM): Hold(kept_from, 14.9)}))
            network.play()
            digests = {m.completed.model_digest for m in network.honest() if m.completed is not None}
            assert len(digests) <= 1
            ends.add(all(m.completed is not None for m in network.honest()))
    assert ends == {True, False}
