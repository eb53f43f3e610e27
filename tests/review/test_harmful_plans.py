"""Plans of an author that an owner allows, and that harm: a node loses their runs and nothing else."""

import asyncio

import numpy as np
import pytest
from onnx import TensorProto

from plans.memory_limit import LEAST_LIMIT_BYTES
from python_node.attempt import UNTRAINED
from python_node.receipts import open_receipt
from python_node.signaling_link import SignalingSession
from tests.e2e.world import finished
from tests.plans.hostile_plans import crumbs, filled, hostile


def telling(attack):
    """An error of ONNX Runtime with a number that the graph made of the owner's data: an index out of range."""
    brightest = attack.add("ReduceMax", "image", keepdims=0)
    told = attack.add("Mul", brightest, attack.constant(-1e6, np.float32))
    return attack.add("Gather", attack.constant([1.0], np.float32), attack.add("Cast", told, to=TensorProto.INT64))


@pytest.mark.parametrize("attack", [filled, crumbs], ids=lambda attack: attack.__name__)
async def test_a_plan_without_bounds_is_left_and_an_honest_one_finished(patient_world, plan, attack):
    world = patient_world
    policy = world.policy(max_memory_bytes=LEAST_LIMIT_BYTES)
    hosts = [await world.node(f"node-{number}", policy=policy) for number in range(3)]
    author = await world.author()

    harmful = (await world.publish(author, hostile(plan, attack), cohort_size=3, rounds=2)).run
    honest = (await world.publish(author, plan, cohort_size=3, rounds=2)).run

    assert (await finished(author, honest)).state == "finished"
    # the others were called off by the first one that left, or left too
    leaving = [asyncio.ensure_future(host.diary.until("withdrawn", run=harmful)) for host in hosts]
    done, waiting = await asyncio.wait(leaving, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    left = [host for host, task in zip(hosts, leaving, strict=True) if task in done]
    assert left
    for host in left:
        (event,) = host.diary.of("withdrawn", run=harmful)
        assert event.fields["rule"] == "max_memory_bytes"
        assert "268 MB of memory, this node's limit for one run" in event.fields["reason"]
        receipts = [open_receipt(item, node=host.peer) for item in host.state.receipts(harmful)]
        assert [(r.decision, r.rule) for r in receipts] == [("accepted", "authors"), ("declined", "max_memory_bytes")]
    for host in hosts:
        await host.diary.until("round_completed", "fetched", run=honest, round=2)
        assert not host.task.done()


async def test_others_hear_no_number_that_a_graph_put_into_an_error(patient_world, plan, monkeypatch):
    world = patient_world
    said = []
    real = SignalingSession.round_failed

    async def round_failed(self, run, **fields):
        said.append(fields["reason"])
        await real(self, run, **fields)

    monkeypatch.setattr(SignalingSession, "round_failed", round_failed)
    hosts = await world.nodes(3)
    author = await world.author()
    run = (await world.publish(author, hostile(plan, telling), cohort_size=3, rounds=1)).run
    failures = [(await host.diary.until("round_failed", run=run)).fields["reason"] for host in hosts]
    await finished(author, run)
    assert any("idx=-" in reason for reason in failures), failures  # the owner is told
    assert UNTRAINED in said
    assert not [reason for reason in said if "idx" in reason]
