"""Rounds among nodes that do nothing wrong."""

import asyncio

import numpy as np

from protocol.secagg.apply import model_digest
from protocol.signaling import RoundStart
from python_node.author import check_entry
from tests.e2e.world import finished, models, whole_log

RESULT = 10
"""The second byte of a RESULT (spec 07 §3)."""


async def test_five_peers_end_with_bit_identical_models_and_the_logged_digest(world, plan):
    hosts = await world.nodes(5)
    author = await world.author()
    run = (await world.publish(author, plan, min_cohort=5)).run

    status = await finished(author, run)

    assert (status.state, status.round) == ("finished", 3)
    for host in hosts:
        await host.diary.until("round_completed", round=3)
    held = {host.model(run) for host in hosts}
    assert len(held) == 1
    entries = await whole_log(author, run)
    assert [entry.round for entry in entries] == [1, 2, 3]
    assert held.pop()[:2] == (3, entries[-1].model_digest)
    assert all(len(entry.survivors) == 5 for entry in entries)

    fetched = await author.fetch(run)

    assert fetched.digest == entries[-1].model_digest == model_digest(fetched.values)
    assert fetched.values.tobytes() == hosts[0].model(run)[2]


async def test_the_log_carries_a_quorums_signatures_and_each_round_binds_to_the_one_before(world, plan):
    await world.nodes(4)
    author = await world.author()
    status = await world.publish(author, plan, cohort_size=4, min_cohort=4)
    initial = status.model_digest

    await finished(author, status.run)

    agreed = (await author.view(status.run)).terms
    previous = initial
    for entry in await whole_log(author, status.run):
        assert entry.previous_digest == previous
        check_entry(entry, run=status.run, number=entry.round, digest=entry.model_digest, terms=agreed)
        previous = entry.model_digest


async def test_every_ready_peer_is_in_every_cohort(patient_world, plan):
    """Whose report comes last is not left out of the next cohort, nor does it starve behind fast rounds."""
    await patient_world.nodes(5)
    author = await patient_world.author()
    run = (await patient_world.publish(author, plan, rounds=12, min_cohort=3)).run

    await finished(author, run)

    cohorts = [len(entry.cohort) for entry in await whole_log(author, run)]
    assert cohorts == [5] * 12


async def test_training_over_the_peers_lowers_the_loss(world, plan):
    await world.nodes(3)
    author = await world.author()
    run = (await world.publish(author, plan, rounds=6, cohort_size=3)).run

    await finished(author, run)

    view = await author.view(run)
    losses = [view.metrics(entry).training["loss"] for entry in await whole_log(author, run)]
    assert losses[-1] < 0.7 * losses[0]


async def test_a_late_joiner_fetches_the_model_and_is_in_the_next_cohorts(world, plan, make_gate):
    gate = make_gate(free=2)
    await world.nodes(4)
    author = await world.author()
    run = (await world.publish(author, plan, rounds=10)).run
    await world.hosts["node-0"].diary.until("round_completed", round=2)

    late = await world.node("late")

    fetched = await late.diary.until("fetched")
    assert fetched.fields["round"] >= 2
    gate.open()
    await late.diary.until("round_completed")
    await finished(author, run)
    sizes = [len(entry.cohort) for entry in await whole_log(author, run)]
    assert sizes[0] == 4
    assert sizes[-1] == 5


async def test_two_runs_of_one_author_go_on_side_by_side(world, plan):
    hosts = await world.nodes(3)
    author = await world.author()
    runs = [(await world.publish(author, plan, cohort_size=3, rounds=4)).run for _ in range(2)]

    states = [(await finished(author, run)).state for run in runs]

    assert states == ["finished", "finished"]
    for run in runs:
        await asyncio.gather(*(host.diary.until("round_completed", run=run, round=4) for host in hosts))
        assert len({host.model(run) for host in hosts}) == 1
    first, second = (np.frombuffer(hosts[0].model(run)[2], "<f4") for run in runs)
    assert not np.array_equal(first, second)  # another nonce: another order of examples and other rounding


async def test_the_next_round_may_be_named_before_a_node_hears_that_the_others_agree(world, plan):
    """Its own signature is among theirs, so that signaling knows first; its model is not thrown away for it."""
    hosts = await world.nodes(3)
    slow = hosts[2].node
    take, handle, held = slow._switchboard._on_round_message, slow._handle, []

    def hold(peer, payload, bulk):
        if payload[1] == RESULT and held is not None:
            held.append((peer, bytes(payload), bulk))
        else:
            take(peer, payload, bulk)

    def let_go(event):
        nonlocal held
        handle(event)
        if isinstance(event, RoundStart) and event.round == 2 and held is not None:
            waiting, held = held, None
            for item in waiting:
                take(*item)

    slow._switchboard._on_round_message, slow._handle = hold, let_go
    author = await world.author()
    run = (await world.publish(author, plan, cohort_size=3, rounds=2)).run
    assert (await finished(author, run)).state == "finished"
    assert len(await models(hosts, run, 2)) == 1
    assert [(entry.attempt, entry.peers()) for entry in await whole_log(author, run)] == [(1, (3, 3))] * 2
    assert held is None
    assert hosts[2].diary.of("round_failed") == []
