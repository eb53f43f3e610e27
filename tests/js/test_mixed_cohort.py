"""Python nodes and JavaScript nodes in one cohort, over real websockets and WebRTC."""

import asyncio
import json
import statistics
from pathlib import Path

import pytest

from examples.digits import build_plan
from python_node.mesh import MeshConfig
from python_node.receipts import open_receipt
from tests.e2e.world import TOGETHER, UNHURRIED, World, finished, models
from tests.js.leaders import Leaders
from tests.js.process import SCRIPTS

ROUNDS = 20


@pytest.fixture(scope="session")
def plan():
    return build_plan()


@pytest.fixture
async def world(tmp_path):
    """Its nodes watch links as owners' nodes do, in both languages alike."""
    async with World(tmp_path, timing=TOGETHER, mesh=MeshConfig()) as made:
        yield made


def receipts(peer):
    """The lines of a peer's receipts file."""
    return (Path(peer.options["folder"]) / "receipts.jsonl").read_bytes().splitlines()


async def test_two_python_and_two_javascript_nodes_end_with_the_same_model(world, plan, js):
    hosts = await world.nodes(2)
    peers = [await js("one", heldOut=16), await js("two")]
    author = await world.author()
    status = await world.publish(author, plan, rounds=5, cohort_size=4, min_cohort=4)
    for peer in peers:
        for number in range(1, 6):
            await peer.until("result", round=number)
    assert (await finished(author, status.run)).state == "finished"
    (expected,) = await models(hosts, status.run, 5)
    assert expected[0] == 5
    for peer in peers:
        await peer.ask(command="model", run=status.run)
        held = await peer.until("model")
        assert (held["round"], held["digest"], bytes.fromhex(held["bytes"])) == expected
        assert [event["message"] for event in peer.of("error")] == []
    kept = [open_receipt(line, node=peers[0].of("registered")[0]["peer"]) for line in receipts(peers[0])]
    assert [receipt.decision for receipt in kept] == ["accepted"] * 6
    assert {receipt.run for receipt in kept} == {status.run}
    completed = [receipt.completed for receipt in kept if receipt.completed is not None]
    assert [done.round for done in completed] == [1, 2, 3, 4, 5]
    assert completed[-1].model_digest == expected[1]


async def test_a_second_process_on_one_folder_is_refused_by_name_and_the_first_goes_on(world, js, tmp_path):
    first = await js("first", folder=tmp_path / "shared")
    second = await asyncio.create_subprocess_exec(
        "node", str(SCRIPTS / "peer.mjs"), json.dumps(first.options), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await second.communicate()
    assert second.returncode == 1
    assert b"StorageInUseError" in errors
    assert b"in use by another node; each node needs its own folder" in errors
    first.kill()
    await first.close()
    third = await js("third", folder=tmp_path / "shared")  # a process that died has given its folder free
    await third.ask(command="stop")
    assert await third.exit_code() == 0


@pytest.mark.parametrize("kind", ["fedadam", "fedyogi", "fedavgm"])
async def test_python_and_javascript_nodes_keep_the_same_moments_and_late_ones_fetch_them(world, plan, js, kind):
    hosts = await world.nodes(2)
    first = await js("first")
    author = await world.author()
    options = {"server_optimizer": kind, "server_learning_rate": 0.05}
    status = await world.publish(author, plan, rounds=1000, cohort_size=5, min_cohort=3, **options)
    await first.until("result", round=2)
    late, python = await js("late"), await world.node("late")
    joined = await late.until("result")
    assert joined["round"] > 2
    number = max(joined["round"], (await python.diary.until("round_completed")).fields["round"]) + 2
    digests = {(await peer.until("result", round=number))["modelDigest"] for peer in (first, late)}
    for host in (*hosts, python):
        digests.add((await host.diary.until("round_completed", round=number)).fields["model_digest"])
    assert len(digests) == 1
    await author.session.stop_run(status.run, "seen enough")
    for peer in (first, late):
        await peer.until("ended", state="stopped")
        assert [event["message"] for event in peer.of("error") if "model" in event["message"]] == []
    held = (await world.hosts["node-0"].diary.until("run_ended"), hosts[0].model(status.run))[1]
    await first.ask(command="model", run=status.run)
    theirs = await first.until("model")
    assert len(bytes.fromhex(theirs["bytes"])) == 4 * plan.manifest.parameter_count < len(held[2])


async def test_a_killed_javascript_node_is_survived_and_the_others_agree(world, plan, js):
    hosts = await world.nodes(3)
    stays, goes = await js("stays"), await js("goes")
    author = await world.author()
    status = await world.publish(author, plan, rounds=4, cohort_size=5, min_cohort=4)
    await goes.until("result", round=1)
    await goes.until("round", round=2)
    goes.kill()
    await stays.until("result", round=4)
    assert (await finished(author, status.run)).state == "finished"
    await stays.ask(command="model", run=status.run)
    held = await stays.until("model")
    expected = await models(hosts, status.run, 4)
    assert {(held["round"], held["digest"], bytes.fromhex(held["bytes"]))} == expected


async def test_a_javascript_node_that_joins_late_fetches_the_model_from_a_peer(world, plan, js):
    hosts = await world.nodes(3)
    author = await world.author()
    status = await world.publish(author, plan, rounds=1000, cohort_size=4, min_cohort=3)
    await hosts[0].diary.until("round_completed", round=1)
    late = await js("late")
    first = await late.until("result")
    assert first["round"] > 2
    there = await hosts[0].diary.until("round_completed", round=first["round"])
    assert there.fields["model_digest"] == first["modelDigest"]
    await author.session.stop_run(status.run, "seen enough")
    await late.until("ended", state="stopped")
    await late.ask(command="stop")
    assert await late.exit_code() == 0


async def test_a_javascript_node_declines_an_author_its_owner_did_not_allow(world, plan, js):
    stranger = await js("stranger", author="ab" * 32)
    author = await world.author()
    await world.publish(author, plan, rounds=1)
    offer = await stranger.until("offer")
    assert offer["verdict"] == {
        "accepted": False,
        "rule": "authors",
        "reason": f"author {world.author_identity.peer_id} is not allowed (policy allows 1 authors)",
        "dataset": None,
    }
    await stranger.ask(command="stop")
    assert await stranger.exit_code() == 0
    assert stranger.of("joined") == []


async def test_javascript_nodes_alone_complete_rounds_in_every_role(world, plan, js):
    peers = [await js(f"alone-{number}") for number in range(3)]
    author = await world.author()
    status = await world.publish(author, plan, rounds=4, cohort_size=3, min_cohort=3)
    for peer in peers:
        await peer.until("result", round=4)
    assert (await finished(author, status.run)).state == "finished"
    models = []
    for peer in peers:
        await peer.ask(command="model", run=status.run)
        held = await peer.until("model")
        models.append((held["round"], held["digest"], held["bytes"]))
    assert models[0][0] == 4
    assert models[1:] == models[:1] * 2


async def test_javascript_peers_send_as_many_bytes_as_python_peers_in_the_same_role(world, plan, js):
    """Leaders and others apart; round 1 makes links and is left out. The last chunk is a little shorter."""
    leaders = Leaders()
    leaders.host = await world.node("node-0", on_event=leaders.listen)
    hosts = [leaders.host, *await world.nodes(1, first=1)]
    peers = [await js("one"), await js("two")]
    author = await world.author()
    options = {"rounds": ROUNDS, "cohort_size": 4, "min_cohort": 4, "deadlines": UNHURRIED}
    status = await world.publish(author, plan, **options)
    assert (await finished(author, status.run)).state == "finished"
    sent = {("python", "leader"): [], ("python", "other"): [], ("js", "leader"): [], ("js", "other"): []}
    for number in range(2, ROUNDS + 1):
        for host in hosts:
            event = await host.diary.until("round_completed", round=number)
            role = "leader" if leaders.by_round[number][0] == host.peer else "other"
            sent["python", role].append(event.fields["bytes_sent"])
        for peer in peers:
            result = await peer.until("result", round=number)
            role = "leader" if leaders.by_round[number][0] == peer.of("registered")[0]["peer"] else "other"
            sent["js", role].append(result["bytesSent"])
    for role in ("leader", "other"):
        assert statistics.median(sent["js", role]) == pytest.approx(statistics.median(sent["python", role]), rel=0.02)
