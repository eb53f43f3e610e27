"""A peer that is silent for seconds may be slow or dead: the slow one stays in its round, the dead one leaves it."""

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from examples.digits import build_plan
from python_node.mesh import MeshConfig
from tests.e2e.world import TOGETHER, UNHURRIED, World, finished, models, whole_log

STOPPED_S = 4.0


@pytest.fixture(scope="session")
def plan():
    return build_plan()


@pytest.fixture
async def world(tmp_path):
    """Its nodes watch links as owners' nodes do."""
    async with World(tmp_path, timing=TOGETHER, mesh=MeshConfig()) as made:
        yield made


async def held(peer, run):
    """What a JavaScript node holds, as `models` tells of Python nodes."""
    await peer.ask(command="model", run=run)
    told = await peer.until("model")
    return told["round"], told["digest"], bytes.fromhex(told["bytes"])


@pytest.mark.parametrize("stages", [("advertise", "share", "collect"), ("unmask", "sum", "agree")])
async def test_a_node_that_stands_still_in_a_stage_stays_in_the_round_and_keeps_its_links(world, plan, js, stages):
    """It stops itself, with all its threads, in another stage of each round."""
    rounds = 1 + len(stages)
    hosts = await world.nodes(2)
    signals = {number: (stage, "SIGSTOP") for number, stage in enumerate(stages, 2)}
    slow, other = await js("slow", signals=signals), await js("other")
    author = await world.author()
    options = {"rounds": rounds, "cohort_size": 4, "min_cohort": 4, "deadlines": UNHURRIED}
    run = (await world.publish(author, plan, **options)).run
    await slow.until("result", round=1)
    id_of_slow = slow.of("registered")[0]["peer"]
    before = [host.mesh._peers[id_of_slow].link for host in hosts]
    for _ in signals:
        await slow.until_stopped()
        await asyncio.sleep(STOPPED_S)  # how long it is silent is what is tested; nothing waits for it
        slow.go_on()
    assert (await finished(author, run)).state == "finished"
    for peer in (slow, other):
        await peer.until("result", round=rounds)
        assert [event["message"] for event in peer.of("error")] == []
    assert {*await models(hosts, run, rounds), await held(slow, run), await held(other, run)} == {hosts[0].model(run)}
    log = await whole_log(author, run)
    assert [(entry.attempt, entry.peers()) for entry in log] == [(1, (4, 4))] * rounds
    assert [host.mesh._peers[id_of_slow].link for host in hosts] == before
    assert other.of("link", peer=id_of_slow, up=False) == []


async def test_python_nodes_that_stand_still_are_waited_for_by_javascript_nodes(world, plan, js):
    """All of this process stands still, signaling too."""

    def stand_still(event):
        if event.kind == "round_started" and event.fields["round"] == 2:
            time.sleep(STOPPED_S)

    hosts = [await world.node("node-0", on_event=stand_still), *await world.nodes(1, first=1)]
    peers = [await js("one"), await js("two")]
    author = await world.author()
    options = {"rounds": 3, "cohort_size": 4, "min_cohort": 4, "deadlines": UNHURRIED}
    run = (await world.publish(author, plan, **options)).run
    assert (await finished(author, run)).state == "finished"
    for peer in peers:
        await peer.until("result", round=3)
        assert [event["message"] for event in peer.of("error")] == []
    assert {*await models(hosts, run, 3), *[await held(peer, run) for peer in peers]} == {hosts[0].model(run)}
    log = await whole_log(author, run)
    assert [(entry.attempt, entry.peers()) for entry in log] == [(1, (4, 4))] * 3


async def test_the_next_round_may_be_named_before_a_node_hears_that_the_others_agree(world, plan, js):
    """Its own signature is among theirs, so that signaling knows first; its model is not thrown away for it."""
    hosts, late = await world.nodes(2), await js("late", late=True)
    author = await world.author()
    run = (await world.publish(author, plan, rounds=2, cohort_size=3, deadlines=UNHURRIED)).run
    assert (await finished(author, run)).state == "finished"
    await late.until("result", round=2)
    assert {*await models(hosts, run, 2), await held(late, run)} == {hosts[0].model(run)}
    assert [(entry.attempt, entry.peers()) for entry in await whole_log(author, run)] == [(1, (3, 3))] * 2
    assert [event["message"] for event in late.of("error")] == []


async def test_a_killed_node_is_told_from_a_slow_one_in_both_languages(world, plan, js):
    """Its connection to signaling ends with its process, so that nobody waits for it as for a slow one."""
    hosts = await world.nodes(3)
    stays, goes = await js("stays"), await js("goes", signals={2: ("collect", "SIGKILL")})
    author = await world.author()
    options = {"rounds": 3, "cohort_size": 5, "min_cohort": 4, "deadlines": UNHURRIED}
    run = (await world.publish(author, plan, **options)).run
    gone = goes.of("registered")[0]["peer"]
    with capture_logs() as logs:
        assert (await finished(author, run)).state == "finished"
        await models(hosts, run, 3)
    reasons = [line["reason"] for line in logs if line["event"] == "link down" and line["peer"] == gone[:8]]
    reasons.append((await stays.until("link", peer=gone, up=False))["reason"])
    assert ["signaling lost it too" in reason for reason in reasons] == [True] * 4, reasons
    log = await whole_log(author, run)
    assert [(entry.attempt, entry.peers()) for entry in log] == [(1, (5, 5)), (1, (5, 4)), (1, (4, 4))]
