"""Runs with a server optimizer that keeps moments: all hold the same ones, whoever comes late or comes back."""

import asyncio

import numpy as np
import pytest

from protocol.errors import ProtocolError
from protocol.secagg.apply import model_digest
from protocol.terms import encode_terms
from python_node.log_checking import check_initial_model
from python_node.membership import initial_model
from python_node.training import model_length
from tests.e2e.world import finished, terms, whole_log

FEDADAM = {"server_optimizer": "fedadam", "server_learning_rate": 0.02}


def fit(model, plan):
    """Theta and buffers, and the moments, of a model as a node holds it."""
    values = np.frombuffer(model[2], "<f4")
    return values[: model_length(plan)], values[model_length(plan) :]


async def test_a_late_joiner_and_a_restarted_node_hold_the_same_moments_as_the_others(world, plan, make_gate):
    gate = make_gate(free=4)
    hosts = await world.nodes(4)
    author = await world.author()
    run = (await world.publish(author, plan, rounds=24, **FEDADAM)).run
    await hosts[3].diary.until("round_completed", round=2)
    await world.hosts.pop("node-3").close()
    await hosts[0].diary.until("round_completed", round=4)

    late, back = await world.node("late"), await world.node("node-3")

    await asyncio.gather(late.diary.until("fetched"), back.diary.until("fetched"))
    gate.open()
    status = await finished(author, run)
    everybody = [*hosts[:3], late, back]
    for host in everybody:
        await host.diary.until("round_completed", round=24)
    entries = await whole_log(author, run)
    assert (status.state, len(entries), len(entries[-1].cohort)) == ("finished", 24, 5)
    held = {host.model(run) for host in everybody}
    assert len(held) == 1
    model = held.pop()
    assert model[:2] == (24, entries[-1].model_digest)
    assert model_digest(np.frombuffer(model[2], "<f4")) == entries[-1].model_digest

    values, moments = fit(model, plan)
    parameters = plan.manifest.parameter_count
    assert len(moments) == 2 * parameters
    assert np.count_nonzero(moments[:parameters]) > parameters // 2
    assert (moments[parameters:] > 0).all()
    fetched = await author.fetch(run)
    assert fetched.digest == entries[-1].model_digest
    assert fetched.values.tobytes() == values.tobytes()

    view = await author.view(run)
    losses = [view.metrics(entry).training["loss"] for entry in entries]
    assert losses[-1] < 0.5 * losses[0]


async def test_moments_survive_in_the_checkpoint_when_every_node_stops(world, plan):
    """Nobody is left to fetch from: what comes back is what was on disk."""
    hosts = await world.nodes(3)
    author = await world.author()
    run = (await world.publish(author, plan, rounds=400, cohort_size=3, server_optimizer="fedyogi")).run
    await asyncio.gather(*(host.diary.until("round_completed", round=2) for host in hosts))
    for host in hosts:
        await world.hosts.pop(host.diary.name).close()
    reached = (await author.session.get_run(run)).status
    assert reached.state not in ("finished", "failed")

    back = [await world.node(host.diary.name) for host in hosts]

    for host in back:
        await host.diary.until("round_completed", round=reached.round + 2)
    await author.session.stop_run(run, "seen enough")
    assert (await finished(author, run)).state == "stopped"
    entries = await whole_log(author, run)
    digests = [entry.model_digest for entry in entries]
    assert [entry.previous_digest for entry in entries[1:]] == digests[:-1]


async def test_the_run_starts_from_the_model_that_terms_and_plan_give(world, plan):
    author = await world.author()
    opened = await world.publish(author, plan, server_optimizer="fedyogi", server_tau=0.5)
    agreed = (await author.view(opened.run)).terms
    start = initial_model(plan, agreed.server_optimizer)
    parameters = plan.manifest.parameter_count
    assert opened.model_digest == model_digest(start)
    assert set(start[-2 * parameters : -parameters]) == {0.0}
    assert set(start[-parameters:]) == {0.25}
    check_initial_model(plan.manifest, agreed.server_optimizer, start.tobytes())
    start[-1] = 0.0
    with pytest.raises(ProtocolError, match="other moments"):
        check_initial_model(plan.manifest, agreed.server_optimizer, start.tobytes())


async def test_another_optimizer_or_rate_is_another_run(plan):
    nonce = "00" * 32
    made = [
        encode_terms(terms(plan, nonce=nonce, **options))
        for options in ({}, FEDADAM, {**FEDADAM, "server_learning_rate": 0.03})
    ]
    assert len(set(made)) == 3
