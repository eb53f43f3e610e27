"""The page at /join reaches peers by STUN and TURN servers that its own server names, and keeps no credential."""

import base64
import hashlib
import hmac
import os
import time
from pathlib import Path

import numpy as np
import pytest

from examples.digits import build_plan
from protocol.terms import Deadlines
from python_node.mesh import MeshConfig
from signaling import IceServers
from tests.e2e.data import examples
from tests.e2e.world import World, finished, models
from tests.js.relay import TURN_SERVER, Relay
from tests.js.tab import Tab

pytestmark = pytest.mark.skipif(
    not Path("/usr/bin/chromium").exists() and not os.environ.get("CI"),
    reason="needs /usr/bin/chromium (as root, `make js` installs it)",
)

CONNECT = "Connect and look for runs"
SECRET = b"known to the TURN servers alone"
STAGES = ("link", "train", "advertise", "share", "commit", "consistency", "unmask", "sum")
DEADLINES = Deadlines(**{f"{stage}_ms": 30_000 for stage in STAGES})
PATIENT = MeshConfig(ping_after_s=5, dead_after_s=60)
# what each connection was made with, and connections that use relays alone
SEEN = """
  window.connections = [];
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(options) {
      super({ ...options, ...window.forced });
      if (options.iceServers !== undefined) window.connections.push({ options, made: this });
    }
  };
"""
RELAYED_ONLY = SEEN + 'window.forced = { iceTransportPolicy: "relay" };'
ASKED_WITH = "window.connections.map(({ options }) => options.iceServers)"
# for each open connection what this end of it is
PAIRS = """(async () => {
  const kinds = [];
  for (const { made } of window.connections) {
    if (made.connectionState !== "connected") continue;
    const stats = await made.getStats();
    for (const { type, selectedCandidatePairId } of stats.values()) {
      if (type !== "transport") continue;
      const { localCandidateId } = stats.get(selectedCandidatePairId);
      kinds.push(stats.get(localCandidateId).candidateType);
    }
  }
  return kinds;
})()"""
# everything this origin keeps on disk, as one text
KEPT = """(async () => {
  const kept = [Object.entries(localStorage), Object.entries(sessionStorage), document.cookie, await caches.keys()];
  for (const { name } of await indexedDB.databases()) {
    const open = indexedDB.open(name);
    await new Promise((resolve) => (open.onsuccess = resolve));
    for (const store of open.result.objectStoreNames) {
      const all = open.result.transaction(store).objectStore(store).getAll();
      await new Promise((resolve) => (all.onsuccess = resolve));
      kept.push(store, all.result);
    }
    open.result.close();
  }
  return JSON.stringify(kept, (_, value) => (ArrayBuffer.isView(value) ? String.fromCharCode(...value) : value));
})()"""


@pytest.fixture
async def tab():
    tab = Tab()
    yield tab
    await tab.close()


async def joined(tab, world, tmp_path, *, before, stun="", flags=()):
    """Open the page, connect, and accept the run of an author beside two Python nodes; gives all of it."""
    np.savez(tmp_path / "shard.npz", **examples(5))
    hosts = await world.nodes(2)
    await tab.open(before=before, flags=flags)
    assert await tab.do("goto", url=world.server.join_url) == 200
    await tab.do("pick", button="Choose a file", paths=[str(tmp_path / "shard.npz")])
    await tab.do("fill", label="Smallest group for a sum", value="3")
    await tab.do("fill", label="Help through a router", value="stun:no port/")
    await tab.do("click", role="button", called=CONNECT)
    await tab.do("until", selector="input:invalid")
    assert await tab.do("attribute", selector="#state", attribute="data-state") == "idle"
    await tab.do("fill", label="Help through a router", value=stun)
    await tab.do("click", role="button", called=CONNECT)
    await tab.do("until", selector="#state[data-state=on]")
    author = await world.author()
    status = await world.publish(author, build_plan(), rounds=2, cohort_size=3, deadlines=DEADLINES)
    await tab.do("until", selector=".card")
    await tab.do("click", role="button", called="Accept and train")
    return hosts, author, status.run


async def test_connections_get_the_servers_that_the_signaling_server_names(tab, tmp_path, join_page):
    ice = IceServers(
        stun=("stun:127.0.0.1:9",), turn=("turn:127.0.0.1:9?transport=udp",), turn_secret=SECRET, turn_lifetime_s=3600
    )
    async with World(tmp_path, page=join_page, mesh=PATIENT, ice=ice) as world:
        _, author, run = await joined(tab, world, tmp_path, before=SEEN, stun="stun:127.0.0.1:19")
        assert (await finished(author, run)).state == "finished"
        await tab.do("until", selector=".run[data-state=over][data-done='2']")
        asked = await tab.do("evaluate", script=ASKED_WITH)
        assert len(asked) >= 2
        told = asked[0][2]
        expected = [{"urls": "stun:127.0.0.1:19"}, {"urls": ["stun:127.0.0.1:9"]}, told]
        assert asked == [expected] * len(asked)
        assert told["urls"] == ["turn:127.0.0.1:9?transport=udp"]
        until, _, _ = told["username"].partition(":")
        assert abs(int(until) - time.time() - 3600) < 600
        digest = hmac.new(SECRET, told["username"].encode(), hashlib.sha1).digest()
        assert base64.b64decode(told["credential"]) == digest
        assert "127.0.0.1, which learn your internet address" in await tab.do("text", selector="#relays")
        assert await tab.do("accessibility") == []
        kept = await tab.do("evaluate", script=KEPT)
        assert "identity" in kept
        for secret in (told["credential"], told["username"], SECRET.decode()):
            assert secret not in kept
        assert tab.of("pageerror") == []
        assert tab.of("console") == []


async def test_a_page_that_is_told_of_no_servers_says_so_and_goes_on(tab, tmp_path, join_page):
    async with World(tmp_path, page=join_page, mesh=PATIENT) as world:
        np.savez(tmp_path / "shard.npz", **examples(5))
        await tab.open(before=SEEN, instead=[("/join/ice-servers.json", 503)])
        assert await tab.do("goto", url=world.server.join_url) == 200
        await tab.do("until", selector="#problems [data-code=ice-servers]")
        assert "HTTP 503" in await tab.do("text", selector="#problems")
        await tab.do("pick", button="Choose a file", paths=[str(tmp_path / "shard.npz")])
        await tab.do("click", role="button", called=CONNECT)
        await tab.do("until", selector="#state[data-state=on]")
        assert await tab.do("attribute", selector="#relays", attribute="hidden") is not None


@pytest.mark.slow
@pytest.mark.skipif(
    TURN_SERVER is None and not os.environ.get("CI"),
    reason="needs coturn's turnserver (as root, `make js` installs it)",
)
@pytest.mark.parametrize("over", ["udp", "tcp", "tls"])
async def test_a_tab_that_may_use_relays_alone_trains_over_a_turn_server(over, tab, tmp_path, join_page):
    async with Relay(tmp_path, over) as relay:
        ice = IceServers(turn=(relay.url,), turn_secret=relay.secret)
        async with World(tmp_path, page=join_page, mesh=PATIENT, ice=ice) as world:
            flags = ("--ignore-certificate-errors",) if over == "tls" else ()
            hosts, author, run = await joined(tab, world, tmp_path, before=RELAYED_ONLY, flags=flags)
            await tab.do("until", selector=".run[data-done]:not([data-done='0'])")
            assert await tab.do("evaluate", script=PAIRS) == ["relay", "relay"]
            assert (await finished(author, run)).state == "finished"
            await tab.do("until", selector=".run[data-state=over][data-done='2']")
            held = await tab.do("attribute", selector=".model", attribute="title")
            assert {model[1] for model in await models(hosts, run, 2)} == {held}
        assert relay.secret.decode() not in relay.log
    assert tab.of("pageerror") == []
