"""Whole rounds of p2psa/1 over an in-memory network. Start reading here."""

from __future__ import annotations

import numpy as np
import pytest

from protocol.round.machine import Stage
from tests.round.network import Network


def assert_exact(network: Network, survivors: set[int], *, lost_with: int | None = None) -> None:
    """Everyone alive ends with the same model: the checkpoint plus the mean of the survivors' updates.

    `lost_with` names a peer that died: the chunk it owned may count as zero, and no other (spec 07 §9).
    """
    alive = network.alive()
    assert alive
    for member in alive:
        assert member.failed is None, member.failed
        assert member.completed is not None
        assert member.completed.survivors == frozenset(survivors)
        assert member.model is not None
        assert member.model.tobytes() == alive[0].model.tobytes()
    aggregate = alive[0].aggregate
    largest = network.parameters.largest_value
    plain = network.plain_sum(frozenset(survivors)) * largest
    sums = aggregate.sums[: len(plain)]
    # stochastic rounding moves each value by less than one step
    wrong = set(np.flatnonzero(np.abs(sums - plain) >= len(survivors)).tolist())
    if lost_with is not None and wrong:
        plan = network.parameters.chunks(frozenset(range(network.parameters.size)))
        start, end = plan.bounds(lost_with)
        assert wrong <= set(range(start, end))
        assert not sums[start:end].any()
        wrong = set()
    assert not wrong
    assert aggregate.weight(len(plain), largest) == len(survivors) * largest


@pytest.mark.parametrize(
    ("n", "ring_bits"),
    [(n, bits) for n in (3, 4, 5, 10, 33, 64) for bits in (20, 24, 32) if n <= 16 or bits > 20],
)
def test_everybody_ends_with_the_same_model(n: int, ring_bits: int) -> None:
    network = Network(n, ring_bits=ring_bits)
    network.start()
    network.run()
    assert_exact(network, set(range(n)))
    assert not any(member.faults for member in network.members)


def test_peer_lost_before_masking_is_left_out() -> None:
    network = Network(7)
    network.start(without_update=frozenset(range(7)))
    network.run_until(lambda: all(m.machine.stage >= Stage.COLLECT for m in network.members))
    network.kill(2)
    for index in range(7):
        if index != 2:
            network.give_update(index)
    network.run()
    assert_exact(network, {0, 1, 3, 4, 5, 6})


@pytest.mark.parametrize("victim", range(7))
@pytest.mark.parametrize("stage", [Stage.ADVERTISE, Stage.SHARE, Stage.COLLECT, Stage.UNMASK, Stage.SUM, Stage.AGREE])
def test_peer_lost_in_any_stage_costs_itself_at_most(victim: int, stage: Stage) -> None:
    network = Network(7)
    network.start()
    network.run_until(lambda: network.members[victim].machine.stage >= stage)
    network.kill(victim)
    network.run()
    alive = network.alive()
    assert all(member.completed for member in alive), [m.failed for m in alive if m.failed]
    survivors = alive[0].completed.survivors
    assert survivors >= set(range(7)) - {victim}
    assert_exact(network, set(survivors), lost_with=victim)


def test_plain_update_is_in_no_byte_that_leaves() -> None:
    network = Network(5)
    network.start()
    network.run()
    for member in network.members:
        plain = member.update
        scaled = np.floor(plain * network.parameters.largest_value).astype(np.int32)
        for _, _, data, _ in network.sent:
            assert plain[:4].tobytes() not in data
            assert scaled[:4].tobytes() not in data
    assert_exact(network, set(range(5)))


def test_too_few_peers_fail_with_both_numbers() -> None:
    network = Network(5, min_survivors=5)
    network.start(without_update=frozenset({1}))
    network.run_until(lambda: all(m.machine.stage >= Stage.COLLECT for m in network.members))
    network.kill(1)
    network.run()
    assert all(member.failed for member in network.alive())
    assert any("only 4 peers for the survivor set, expected at least 5" in m.failed.reason for m in network.alive())
