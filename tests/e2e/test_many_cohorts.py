"""Rounds of several cohorts over real links: groups sum, delegates combine, all end with one model (spec 08)."""

import asyncio

import numpy as np
import pytest

from python_node.log_checking import check_entry
from python_node.membership import initial_model
from python_node.receipts import open_receipt
from python_node.signaling_link import SignalingSession
from python_node.state import NodeState
from python_node.training import LocalTrainer
from tests.e2e.world import finished, models, terms, whole_log


@pytest.fixture
async def world(patient_world):
    return patient_world


TWO = {"cohorts": 2, "cohort_size": 5, "min_cohort": 3}


async def test_ten_peers_in_two_cohorts_end_with_one_model(world, plan):
    hosts = await world.nodes(10)
    author = await world.author()
    run = (await world.publish(author, plan, rounds=3, **TWO)).run

    assert (await finished(author, run)).state == "finished"

    held = await models(hosts, run, 3)
    assert len(held) == 1
    entries = await whole_log(author, run)
    assert held.pop()[:2] == (3, entries[-1].model_digest)
    asked = terms(plan, rounds=3, **TWO)
    for number, entry in enumerate(entries, 1):
        check_entry(entry, run=run, number=number, digest=entry.model_digest, terms=asked)
        assert entry.attempt == 1
        assert entry.peers() == (10, 10)
        assert len(entry.cohort) == 4, "two groups send two delegates each"
        assert sorted(entry.combining.sources) == [0, 0, 1, 1]


async def test_sum_of_two_cohorts_is_the_mean_over_all_peers(world, plan, monkeypatch):
    """The model moves by the weighted mean of what all ten really trained, to the quantiser's step."""
    updates = []
    real = LocalTrainer.update

    def keep(trainer, *arguments, **options):
        update = real(trainer, *arguments, **options)
        updates.append(update)
        return update

    monkeypatch.setattr(LocalTrainer, "update", keep)
    hosts = await world.nodes(10)
    author = await world.author()
    run = (await world.publish(author, plan, rounds=1, clip=1.0, **TWO)).run
    assert (await finished(author, run)).state == "finished"

    (model,) = {host.model(run)[2] for host in hosts if host.model(run)[0] == 1}
    moved = np.frombuffer(model, "<f4").astype(np.float64) - initial_model(plan.sign(world.author_identity))
    weights = np.array([update.weight_fraction for update in updates])
    mean = sum(u.values.astype(np.float64) * w for u, w in zip(updates, weights, strict=True)) / weights.sum()
    assert len(updates) == 10
    # ten stochastic roundings of at most one step of clip / 32767 each, over the sum of the weights; then float32
    assert np.abs(moved - mean).max() < 10 / 32767 / weights.sum() + 1e-6
    assert np.abs(mean).max() > 0.01


async def test_node_lost_in_its_group_stops_nobody(world, plan, gate):
    hosts = await world.nodes(10)
    author = await world.author()
    run = (await world.publish(author, plan, rounds=3, **TWO)).run
    await asyncio.gather(*(host.diary.until("round_started", round=2) for host in hosts))

    await world.hosts.pop("node-9").close()
    gate.open()

    assert (await finished(author, run)).state == "finished"
    entries = await whole_log(author, run)
    assert [entry.round for entry in entries] == [1, 2, 3]
    assert entries[1].peers() == (10, 9)
    assert len(await models(hosts[:9], run, 3)) == 1


async def test_signaling_that_restarts_between_levels_loses_no_round(world, plan, gate):
    hosts = await world.nodes(6)
    author = await world.author()
    run = (await world.publish(author, plan, rounds=3, cohorts=2, cohort_size=3, min_cohort=3)).run
    await asyncio.gather(*(host.diary.until("round_started", round=2) for host in hosts))

    await world.stop_signaling()
    gate.open()
    await asyncio.gather(*(host.diary.until("group_completed", round=2) for host in hosts))
    await world.start_signaling()

    assert (await finished(author, run)).state == "finished"
    entries = await whole_log(author, run)
    assert [(entry.round, entry.attempt) for entry in entries] == [(1, 1), (2, 1), (3, 1)]
    assert all(entry.combining is not None for entry in entries)
    assert len(await models(hosts, run, 3)) == 1


async def test_receipts_name_the_group_and_no_metrics_of_one_group_leave_it(world, plan, monkeypatch):
    reported = []
    real = SignalingSession.result

    async def note(session, run, **fields):
        reported.append(fields)
        await real(session, run, **fields)

    monkeypatch.setattr(SignalingSession, "result", note)
    hosts = await world.nodes(6)
    author = await world.author()
    run = (await world.publish(author, plan, rounds=1, cohorts=2, cohort_size=3, min_cohort=3)).run
    assert (await finished(author, run)).state == "finished"
    await models(hosts, run, 1)
    await asyncio.gather(*(host.close() for host in hosts))  # what is under way is on disk after that
    world.hosts.clear()

    by_level = {1: [], 2: []}
    for fields in reported:
        by_level[fields["place"].level].append(fields["metrics"])
    assert set(by_level[1]) == {b""}
    assert all(len(metrics) > 0 for metrics in by_level[2])
    for host in hosts:
        with NodeState.open(world.folder / host.diary.name) as state:
            receipts = [open_receipt(data, node=host.peer) for data in state.receipts(run)]
        done = [receipt.completed for receipt in receipts if receipt.completed is not None]
        assert [(item.round, item.survivors) for item in done] == [(1, 3)]
        assert done[0].group in (0, 1)
