"""Tabs of headless Chromium in a round of two cohorts, as members of a group and as its delegates (spec 08)."""

import dataclasses
import json
import os
from pathlib import Path

import msgspec
import pytest

from examples.digits import build_plan
from python_node.log_checking import check_entry
from tests.e2e.world import DEADLINES, TIMING, World, finished, models, terms, whole_log
from tests.js.process import JsPeer, owned_examples

ROUNDS = 2
STAGES = ("advertise", "share", "commit", "consistency", "unmask", "sum")
UNHURRIED = msgspec.structs.replace(DEADLINES, **{f"{stage}_ms": 20_000 for stage in STAGES})
TWO = {"cohorts": 2, "cohort_size": 3, "min_cohort": 3, "rounds": ROUNDS, "deadlines": UNHURRIED}
TABS = ("left", "right")

pytestmark = pytest.mark.skipif(
    not Path("/usr/bin/chromium").exists() and not os.environ.get("CI"),
    reason="needs /usr/bin/chromium (as root, `make js` installs it)",
)


@pytest.fixture(scope="session")
def plan():
    return build_plan()


@pytest.fixture
async def world(tmp_path):
    """Its signaling server waits for every node, however slow, before it names the first round."""
    patient = dataclasses.replace(TIMING, gather_s=600.0, settle_s=60.0, join_s=60.0, absence_s=60.0)
    async with World(tmp_path, timing=patient) as made:
        yield made


@pytest.fixture
async def tabs(package, world, tmp_path):
    """Opens the tabs of one Chromium, and closes them."""
    peer = JsPeer("tabs")

    async def opened():
        given = {}
        for name in TABS:
            made = owned_examples(name)
            source = tmp_path / f"{name}.json"
            source.write_text(json.dumps({"image": made["image"].ravel().tolist(), "label": made["label"].tolist()}))
            given[name] = {"data": str(source)}
        options = {"url": world.url, "author": world.author_identity.peer_id, "tabs": given}
        await peer.start(options, script="tabs.mjs")
        return peer

    yield opened
    await peer.close()


async def test_two_tabs_and_a_python_node_are_one_of_two_groups_and_a_tab_is_its_delegate(world, plan, tabs, js):
    """Two of the three members of a group speak for it, so that one of them is a tab in every round."""
    author = await world.author()
    run = (await world.publish(author, plan, **TWO)).run
    browser = await tabs()
    for tab in TABS:
        await browser.until("ready", tab=tab, run=run)
    hosts = [await world.node("node-0")]
    await hosts[0].diary.until("ready", run=run)  # the first three are one group
    process = await js("process")
    hosts += await world.nodes(2, first=1)

    assert (await finished(author, run)).state == "finished"
    (held,) = await models(hosts, run, ROUNDS)
    for tab in TABS:
        while not (browser.of("result", tab=tab, round=ROUNDS) or browser.of("fetched", tab=tab, round=ROUNDS)):
            await browser.next_event()
        await browser.ask(command="model", tab=tab, run=run)
        theirs = await browser.until("model", tab=tab)
        assert (theirs["round"], theirs["digest"], bytes.fromhex(theirs["bytes"])) == held
    assert [event["message"] for peer in (browser, process) for event in peer.of("error")] == []

    mine = {tab: browser.of("connected", tab=tab)[0]["peer"] for tab in TABS}
    entries = await whole_log(author, run)
    asked = terms(plan, **TWO)
    for number, entry in enumerate(entries, 1):
        check_entry(entry, run=run, number=number, digest=entry.model_digest, terms=asked)
        assert (entry.attempt, entry.peers()) == (1, (6, 6))
        speakers = {peer for peer, group in zip(entry.cohort, entry.combining.sources, strict=True) if group == 0}
        assert len(speakers) == 2
        assert {*mine.values()} & speakers, "a tab combined the sums of both groups"
        for tab, peer in mine.items():
            found, fetched = (len(browser.of(how, tab=tab, round=number)) for how in ("result", "fetched"))
            assert found <= (peer in speakers), "who is no delegate fetches the model"
            assert found + fetched > 0  # three delegates of four may have signed before the fourth was done
        sums = {0: set(), 1: set()}
        for tab in TABS:
            (told,) = browser.of("group", tab=tab, round=number)
            assert told["group"] == 0
            sums[0].add(told["sumDigest"])
        for host, group in zip(hosts, (0, 1, 1), strict=True):
            event = await host.diary.until("group_completed", round=number)
            assert event.fields["group"] == group
            sums[group].add(event.fields["sum_digest"])
        told = await process.until("group", round=number)
        assert told["group"] == 1
        sums[1].add(told["sumDigest"])
        assert [len(found) for found in sums.values()] == [1, 1], "a group's members found one sum, to the bit"
    assert (len(entries), entries[-1].model_digest) == (ROUNDS, held[1])
