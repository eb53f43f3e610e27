"""The browser's half of the package, in headless Chromium."""

import dataclasses
import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from examples.digits import build_plan
from python_node.mesh import MeshConfig
from spec.reference import output
from spec.reference.requests import requests_of
from tests.e2e.world import TOGETHER, UNHURRIED, World, finished
from tests.js.leaders import Leaders, terms_led_by
from tests.js.process import SCRIPTS, JsPeer, owned_examples

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
    """Its nodes watch links as owners' nodes do: tabs are silent for longer on a busy machine."""
    async with World(tmp_path, mesh=MeshConfig()) as made:
        yield made


@pytest.fixture
async def patient(world):
    """A world whose signaling server names the first cohort only when it is complete, and then waits for the slow."""
    await world.stop_signaling()
    timing = dataclasses.replace(TOGETHER, gather_s=60.0)
    world.config = dataclasses.replace(world.config, timing=timing)
    await world.start_signaling()
    return world


@pytest.fixture
async def start(package, world, tmp_path):
    """Starts scripts with tabs or nodes by name and ends them all."""
    peers = []

    def data(name):
        made = owned_examples(name)
        source = tmp_path / f"{name}.json"
        source.write_text(json.dumps({"image": made["image"].ravel().tolist(), "label": made["label"].tolist()}))
        return str(source)

    async def run(script, name, **options):
        peer = JsPeer(name)
        peers.append(peer)
        given = {"url": world.url, "author": world.author_identity.peer_id}
        await peer.start(given | options, script=script)
        return peer

    async def tabs(*names, window=False, **options):
        given = {name: {"data": data(name), **options.get(name, {})} for name in names}
        return await run("tabs.mjs", "tabs", tabs=given, window=window)

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


async def test_two_tabs_a_node_process_and_two_python_nodes_agree_and_a_closed_tab_is_survived(patient, plan, start):
    """A tab leads round 1, and the other one is closed while round 3 collects its chunks."""
    world, leaders = patient, Leaders()
    leaders.host = await world.node("node-0", on_event=leaders.listen)
    hosts = [leaders.host, *await world.nodes(1, first=1)]
    tabs = await start.tabs("left", "right", right={"hang": {"round": 3, "stage": "collect"}})
    process = await start.node("process")
    left = (await tabs.until("connected", tab="left"))["peer"]
    others = [host.peer for host in hosts] + [(await tabs.until("connected", tab="right"))["peer"]]
    others.append((await process.until("registered"))["peer"])
    author = await world.author()
    options = {"rounds": 5, "cohort_size": 5, "min_cohort": 4, "deadlines": UNHURRIED}
    made = terms_led_by(plan, left, [left, *others], **options)
    status = await author.publish(plan, made)
    await tabs.until("hanging", round=3)
    await tabs.ask(command="close", tab="right")
    await tabs.until("result", tab="left", round=5)
    await process.until("result", round=5)
    for host in hosts:
        await host.diary.until("round_completed", round=5)
    assert (await finished(author, status.run)).state == "finished"
    assert leaders.by_round[1] == (left, 0)
    await tabs.ask(command="model", tab="left", run=status.run)
    await process.ask(command="model", run=status.run)
    expected = hosts[0].model(status.run)
    for held in (await tabs.until("model", tab="left"), await process.until("model")):
        assert (held["round"], held["digest"], bytes.fromhex(held["bytes"])) == expected
    assert hosts[1].model(status.run) == expected
    survivors = [tabs.of("result", tab="left", round=number)[0]["survivors"] for number in range(1, 6)]
    assert (survivors[:2], survivors[3:]) == ([5, 5], [4, 4])
    assert tabs.of("pageerror") == []


async def test_a_page_that_lacks_something_says_so_by_name_and_others_are_not_disturbed(world, plan, start):
    lacking = {
        "blind": {"page": "no-webrtc"},
        "old": {"page": "no-simd"},
        "private": {"page": "no-storage"},
        "twin": {"beside": "good"},
    }
    hosts = await world.nodes(2)
    tabs = await start.tabs("good", *lacking, **lacking)
    codes = {name: (await tabs.until("refused", tab=name))["code"] for name in lacking}
    assert codes == {
        "blind": "no-webrtc",
        "old": "no-wasm-simd",
        "private": "storage-failed",
        "twin": "storage-in-use",
    }
    author = await world.author()
    status = await world.publish(author, plan, rounds=2, cohort_size=3)
    await tabs.until("result", tab="good", round=2)
    assert (await finished(author, status.run)).state == "finished"
    assert [event.fields for host in hosts for event in host.diary.of("round_failed")] == []


async def test_a_channel_that_is_open_before_its_answer_is_said_to_be_taken_is_a_link_at_once(patient, plan, start):
    """Of two such tabs one offers, whichever it is."""
    (host,) = await patient.nodes(1)
    tabs = await start.tabs("one", "two", one={"page": "late-answers"}, two={"page": "late-answers"})
    author = await patient.author()
    status = await patient.publish(author, plan, rounds=1, cohort_size=3, deadlines=UNHURRIED)
    ended = await host.diary.until("round_completed", "round_failed", run=status.run)
    assert (ended.kind, ended.fields.get("survivors")) == ("round_completed", 3)
    assert tabs.of("pageerror") == []


async def test_a_tab_works_only_while_its_owners_device_rules_allow_it(patient, plan, start):
    await patient.nodes(2)
    tabs = await start.tabs("phone", phone={"page": "battery", "device": {"leastBattery": 0.5}})
    author = await patient.author()
    status = await patient.publish(author, plan, rounds=1000, cohort_size=3)
    waiting = await tabs.until("waiting", tab="phone")
    assert (waiting["rule"], waiting["reason"]) == ("leastBattery", "the battery is at 10 %, the owner asks for 50 %")
    assert tabs.of("joined") == []
    await tabs.ask(command="battery", tab="phone", level=0.9)
    await tabs.until("result", tab="phone", round=2)

    await tabs.ask(command="battery", tab="phone", level=0.3)
    while len(stopped := tabs.of("waiting", run=status.run)) < 2:
        await tabs.next_event()
    at = len(tabs.of("result"))
    assert stopped[1]["reason"] == "the battery is at 30 %, the owner asks for 50 %"
    await tabs.ask(command="battery", tab="phone", level=0.5)
    while len(tabs.of("result")) < at + 2:
        await tabs.next_event()
    await author.session.stop_run(status.run, "seen enough")
    await tabs.until("ended", tab="phone", state="stopped")
    assert tabs.of("pageerror") == []


async def test_a_tab_that_slept_comes_back_and_the_others_went_on_without_it(world, plan, start):
    hosts = await world.nodes(3)
    tabs = await start.tabs("laptop")
    author = await world.author()
    status = await world.publish(author, plan, rounds=1000, cohort_size=4, min_cohort=3)
    await tabs.until("result", tab="laptop")
    await tabs.ask(command="sleep", tab="laptop")
    await tabs.until("asleep", tab="laptop")
    without = await hosts[0].diary.until("round_completed", survivors=3)
    await hosts[0].diary.until("round_completed", round=without.fields["round"] + 20)
    before = len(tabs.of("result"))
    await tabs.ask(command="wake", tab="laptop")
    while len(tabs.of("result")) < before + 3:
        await tabs.next_event()
    last = tabs.of("result")[-1]
    there = await hosts[0].diary.until("round_completed", round=last["round"])
    assert there.fields["model_digest"] == last["modelDigest"]
    await author.session.stop_run(status.run, "seen enough")
    await tabs.until("ended", tab="laptop", state="stopped")


async def test_a_tab_waits_while_its_connection_is_metered(patient, plan, start):
    await patient.nodes(2)
    tabs = await start.tabs("phone", phone={"metered": True, "device": {"metered": False}})
    author = await patient.author()
    status = await patient.publish(author, plan, rounds=1000, cohort_size=3)
    waiting = await tabs.until("waiting", tab="phone")
    assert (waiting["rule"], waiting["reason"]) == ("metered", "the connection is metered")
    assert tabs.of("joined") == []
    await tabs.ask(command="metered", tab="phone", metered=False)
    await tabs.until("result", tab="phone", round=2)
    await tabs.ask(command="metered", tab="phone", metered=True)
    while len(tabs.of("waiting", run=status.run, rule="metered")) < 2:
        await tabs.next_event()
    await author.session.stop_run(status.run, "seen enough")
    await finished(author, status.run)
    assert tabs.of("pageerror") == []


async def test_a_tab_waits_while_another_one_covers_it(patient, plan, start):
    hosts = await patient.nodes(3)
    tabs = await start.tabs("behind", window=True, behind={"device": {"hidden": False}})
    author = await patient.author()
    status = await patient.publish(author, plan, rounds=1000, cohort_size=4, min_cohort=3)
    await tabs.until("result", tab="behind")
    assert tabs.of("waiting") == []
    await tabs.ask(command="cover", tab="behind")
    waiting = await tabs.until("waiting", tab="behind")
    assert (waiting["rule"], waiting["reason"]) == ("hidden", "the page is hidden")
    # it looks once more when it has told signaling; then nothing but the page's event brings it back
    without = await hosts[0].diary.until("round_completed", survivors=3)
    await hosts[0].diary.until("round_completed", round=without.fields["round"] + 5)
    before = len(tabs.of("result"))
    await tabs.ask(command="uncover", tab="behind")
    while len(tabs.of("result")) < before + 2:
        await tabs.next_event()
    await author.session.stop_run(status.run, "seen enough")
    await finished(author, status.run)
    assert tabs.of("pageerror") == []


async def test_a_tab_keeps_parameters_of_its_own_when_its_page_is_loaded_anew(world, start):
    personal = build_plan(local=["2.*"])
    hosts = await world.nodes(2)
    tabs = await start.tabs("owner", owner={"own": True, "stops": 2})
    author = await world.author()
    status = await world.publish(author, personal, rounds=1000, cohort_size=3)
    kept = await tabs.until("own", round=2)
    (begun,) = tabs.of("own", round=0)
    assert bytes.fromhex(begun["local"]) == personal.initial("local").tobytes() != bytes.fromhex(kept["local"])
    await tabs.ask(command="reload", tab="owner")
    while len(tabs.of("own", round=2)) < 2:
        await tabs.next_event()
    again = tabs.of("own", round=2)[1]
    assert (again["bytes"], again["local"]) == (kept["bytes"], kept["local"])
    result = await tabs.until("result", round=3)
    there = await hosts[0].diary.until("round_completed", round=3)
    assert there.fields["model_digest"] == result["modelDigest"]
    assert (await tabs.until("own", round=3))["local"] != kept["local"]
    await author.session.stop_run(status.run, "seen enough")
    await finished(author, status.run)
    assert tabs.of("pageerror") == []
