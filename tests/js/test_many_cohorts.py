"""Two cohorts in one round, Python and JavaScript nodes in both: groups sum, delegates combine (spec 08)."""

import dataclasses
from pathlib import Path

import pytest

from examples.digits import build_plan
from python_node.log_checking import check_entry
from python_node.receipts import open_receipt
from tests.e2e.world import TIMING, World, finished, models, terms, whole_log

ROUNDS = 3
TWO = {"cohorts": 2, "cohort_size": 3, "min_cohort": 3, "rounds": ROUNDS}


@pytest.fixture(scope="session")
def plan():
    return build_plan()


@pytest.fixture
async def world(tmp_path):
    """Its signaling server waits for every node, however slow, before it names the first round."""
    patient = dataclasses.replace(TIMING, gather_s=600.0, settle_s=60.0, join_s=60.0, absence_s=60.0)
    async with World(tmp_path, timing=patient) as made:
        yield made


async def in_two_groups(world, plan, js):
    """Nodes that consent one after the other, so that the first three are one group: Python, JavaScript, Python."""
    author = await world.author()
    run = (await world.publish(author, plan, **TWO)).run
    hosts, peers = [], []
    for number, kind in enumerate(["python", "js", "python", "js", "python", "js"]):
        if kind == "python":
            hosts.append(await world.node(f"node-{number}"))
            await hosts[-1].diary.until("ready", run=run)
        else:
            peers.append(await js(f"js-{number}"))
            await peers[-1].until("ready", run=run)
    return author, run, hosts, peers


def id_of(peer):
    return peer.of("registered")[0]["peer"]


async def test_python_and_javascript_nodes_in_two_cohorts_end_with_one_model(world, plan, js):
    author, run, hosts, peers = await in_two_groups(world, plan, js)
    for peer in peers:
        await peer.until("ended", run=run, state="finished")
        await peer.until("holds", run=run, round=ROUNDS)
    assert (await finished(author, run)).state == "finished"

    (held,) = await models(hosts, run, ROUNDS)
    for peer in peers:
        await peer.ask(command="model", run=run)
        theirs = await peer.until("model")
        assert (theirs["round"], theirs["digest"], bytes.fromhex(theirs["bytes"])) == held
        assert [event["message"] for event in peer.of("error")] == []

    entries = await whole_log(author, run)
    asked = terms(plan, **TWO)
    for number, entry in enumerate(entries, 1):
        check_entry(entry, run=run, number=number, digest=entry.model_digest, terms=asked)
        assert (entry.attempt, entry.peers()) == (1, (6, 6))
        assert sorted(entry.combining.sources) == [0, 0, 1, 1]
    assert entries[-1].model_digest == held[1]

    for number in range(1, ROUNDS + 1):
        told = {(e["group"], e["sumDigest"]) for peer in peers for e in peer.of("group", round=number)}
        for host in hosts:
            event = await host.diary.until("group_completed", round=number)
            told.add((event.fields["group"], event.fields["sum_digest"]))
        assert sorted(group for group, _ in told) == [0, 1], "both kinds found the same sum of either group"
    groups = [{peer.of("group", round=1)[0]["group"] for peer in peers}, {0, 1}]
    assert groups[0] == groups[1], "JavaScript nodes are in both groups"


async def test_receipts_of_javascript_nodes_name_their_group_and_open_in_python(world, plan, js):
    author, run, _, peers = await in_two_groups(world, plan, js)
    assert (await finished(author, run)).state == "finished"
    for peer in peers:
        await peer.until("holds", run=run, round=ROUNDS)
        lines = (Path(peer.options["folder"]) / "receipts.jsonl").read_bytes().splitlines()
        done = [open_receipt(line, node=id_of(peer)).completed for line in lines]
        done = [item for item in done if item is not None]
        assert [item.round for item in done] == [*range(1, ROUNDS + 1)]
        assert [(item.group, item.model_digest) for item in done] == [
            (event["group"], event["sumDigest"]) for event in peer.of("group")
        ]
