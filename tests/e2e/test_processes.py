"""Real processes: `peerplan signal` and `peerplan node`, killed by SIGKILL where it hurts."""

import asyncio
import itertools

import pytest

from benchmarks.deployment import Deployment
from protocol.secagg.apply import model_digest
from python_node.author import Author
from python_node.log_checking import check_entry
from tests.e2e.data import examples
from tests.e2e.world import finished, terms, whole_log

pytestmark = pytest.mark.slow


@pytest.fixture
async def deployed(tmp_path):
    """A signaling server and four nodes as processes, and an author in this one."""
    async with Deployment(tmp_path, gather_s=0.5, absence_s=3) as world:
        files = {f"node-{i}": world.save_data(f"data-{i}", examples(i)) for i in range(4)}
        await asyncio.gather(*(world.node(name, file, dataset="digits") for name, file in files.items()))
        author = await Author.connect(world.url, world.author)
        try:
            yield world, files, author
        finally:
            await author.close()


async def test_a_node_killed_in_a_round_stops_nobody_and_catches_up_after_its_restart(deployed, plan):
    world, files, author = deployed
    rounds = 60
    run = (await author.publish(plan, terms(plan, rounds=rounds))).run
    killed = world.nodes["node-3"]
    await killed.until("round_started", round=3)

    killed.process.kill()
    await asyncio.gather(
        *(node.until("round_completed", round=6) for name, node in world.nodes.items() if name != "node-3")
    )
    back = await world.node("node-3", files["node-3"], dataset="digits")
    await back.until("fetched")
    await back.until("round_completed")

    assert (await finished(author, run)).state == "finished"
    log = await whole_log(author, run)
    assert [entry.round for entry in log] == list(range(1, rounds + 1))
    assert back.of("registered")[0]["peer"] == killed.of("registered")[0]["peer"]
    for node in world.nodes.values():
        assert (await node.until("round_completed", round=rounds))["model_digest"] == log[-1].model_digest
    fetched = await author.fetch(run)
    assert model_digest(fetched.values) == log[-1].model_digest


async def test_signaling_killed_in_a_round_loses_no_round_of_the_log(deployed, plan):
    world, _, author = deployed
    rounds = 40
    run = (await author.publish(plan, terms(plan, rounds=rounds))).run
    await world.nodes["node-0"].until("round_started", round=4)

    world.signaling.kill()
    await world.signaling.stop()
    await world.start_signaling()

    assert (await finished(author, run)).state == "finished"
    log = await whole_log(author, run)
    assert [entry.round for entry in log] == list(range(1, rounds + 1))
    assert all(before.model_digest == after.previous_digest for before, after in itertools.pairwise(log))
    # a quorum's signatures end a run, so the author may know of it before the last node says so
    ends = [await node.until("round_completed", "fetched", round=rounds) for node in world.nodes.values()]
    assert [end["model_digest"] for end in ends] == [log[-1].model_digest] * 4


async def test_two_cohorts_of_five_processes_end_with_one_model_though_one_is_killed(tmp_path, plan):
    rounds = 8
    async with Deployment(tmp_path, gather_s=0.5, absence_s=3) as world:
        files = {f"node-{i}": world.save_data(f"data-{i}", examples(i)) for i in range(10)}
        await asyncio.gather(*(world.node(name, file, dataset="digits") for name, file in files.items()))
        author = await Author.connect(world.url, world.author)
        try:
            asked = terms(plan, rounds=rounds, cohorts=2, cohort_size=5, min_cohort=3)
            run = (await author.publish(plan, asked)).run
            await world.nodes["node-7"].until("round_started", round=3, level=1)
            world.nodes["node-7"].process.kill()

            assert (await finished(author, run, within_s=150)).state == "finished"

            log = await whole_log(author, run)
            assert [entry.round for entry in log] == list(range(1, rounds + 1))
            assert log[0].combining is not None
            assert log[0].peers() == (10, 10)
            assert log[-1].peers()[0] <= 9
            for entry in log:
                check_entry(entry, run=run, number=entry.round, digest=entry.model_digest, terms=asked)
            alive = [node for name, node in world.nodes.items() if name != "node-7"]
            ends = [await node.until("round_completed", "fetched", round=rounds) for node in alive]
            assert {end["model_digest"] for end in ends} == {log[-1].model_digest}
        finally:
            await author.close()
