"""The browser's half of the package, in headless Chromium."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from examples.digits import build_plan
from spec.reference import output
from spec.reference.requests import requests_of
from tests.e2e.data import examples
from tests.e2e.world import World, finished
from tests.js.process import SCRIPTS, JsPeer

VECTORS = Path(output.__file__).resolve().parents[1] / "vectors"

pytestmark = pytest.mark.skipif(
    not Path("/usr/bin/chromium").exists() and not os.environ.get("CI"),
    reason="needs /usr/bin/chromium (as root, `make js` installs it)",
)


@pytest.fixture(scope="session")
def plan():
    return build_plan()


@pytest.fixture
async def world(tmp_path):
    async with World(tmp_path) as made:
        yield made


@pytest.fixture
async def start(package, world, tmp_path):
    """Starts scripts with tabs or nodes by name and ends them all."""
    peers = []

    def data(name):
        made = examples(int(hashlib.sha256(name.encode()).hexdigest()[:6], 16))
        source = tmp_path / f"{name}.json"
        source.write_text(json.dumps({"image": made["image"].ravel().tolist(), "label": made["label"].tolist()}))
        return str(source)

    async def run(script, name, **options):
        peer = JsPeer(name)
        peers.append(peer)
        given = {"url": world.url, "author": world.author_identity.peer_id}
        await peer.start(given | options, script=script)
        return peer

    async def tabs(*names):
        return await run("tabs.mjs", "tabs", tabs={name: {"data": data(name)} for name in names})

    async def node(name):
        seed = hashlib.sha256(f"js {name}".encode()).hexdigest()
        return await run("peer.mjs", name, seed=seed, folder=str(tmp_path / f"js-{name}"), data=data(name))

    run.tabs, run.node = tabs, node
    yield run
    for peer in peers:
        await peer.close()


def test_every_vector_passes_in_chromium(package):
    requests = [
        request
        for path in sorted(VECTORS.glob("*.json"))
        for request in requests_of(json.loads(path.read_text(encoding="ascii")))
    ]
    lines = [json.dumps({"id": r.id, "op": r.op, "input": r.input}) for r in requests]
    done = subprocess.run(
        ["node", str(SCRIPTS / "vectors-in-chromium.mjs")],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(replies) == len(requests) > 300
    assert [reply for request, reply in zip(requests, replies, strict=True) if not request.matches(reply)] == []


async def test_two_tabs_a_node_process_and_two_python_nodes_agree_and_a_closed_tab_is_survived(world, plan, start):
    hosts = await world.nodes(2)
    tabs = await start.tabs("left", "right")
    process = await start.node("process")
    author = await world.author()
    status = await world.publish(author, plan, rounds=5, cohort_size=5, min_cohort=4)
    await tabs.until("result", tab="right", round=2)
    await tabs.until("round", tab="right", round=3)
    await tabs.ask(command="close", tab="right")
    await tabs.until("result", tab="left", round=5)
    await process.until("result", round=5)
    assert (await finished(author, status.run)).state == "finished"
    await tabs.ask(command="model", tab="left", run=status.run)
    await process.ask(command="model", run=status.run)
    expected = hosts[0].model(status.run)
    for held in (await tabs.until("model", tab="left"), await process.until("model")):
        assert (held["round"], held["digest"], bytes.fromhex(held["bytes"])) == expected
    assert hosts[1].model(status.run) == expected
    assert tabs.of("pageerror") == []
