"""Nodes that may use relays alone link over a TURN server; what a node cannot use is refused or told."""

import asyncio
import json
import os
from functools import partial

import pytest
import structlog
from aioice.ice import StunProtocol
from aiortc import RTCConfiguration, RTCIceServer
from aiortc.rtcconfiguration import RTCIceTransportPolicy

from examples.digits import build_plan
from protocol.errors import LinkError
from python_node.mesh import IceServer, MessageKind, rtc
from tests.e2e.world import TOGETHER, UNHURRIED, World, finished, models
from tests.js.process import SCRIPTS
from tests.js.relay import FIRST_PORT, TURN_SERVER, Relay
from tests.links.conftest import Mesh, Network

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        TURN_SERVER is None and not os.environ.get("CI"),
        reason="needs coturn's turnserver (as root, `make js` installs it)",
    ),
]
RELAYED_ONLY = partial(RTCConfiguration, iceTransportPolicy=RTCIceTransportPolicy.RELAY)
MESSAGE = bytes(range(256)) * 2048


@pytest.fixture
def relayed_only(monkeypatch):
    """Python connections may go over relays alone."""
    monkeypatch.setattr(rtc, "RTCConfiguration", RELAYED_ONLY)


@pytest.fixture
def deaf(monkeypatch):
    """Python peers answer nothing that comes from another place than a relay.

    Node.js needs that: with the same policy its library keeps its own addresses from others, but sends from them.
    """
    hear = StunProtocol.datagram_received

    def hear_relays(self, data, addr):
        if addr[1] >= FIRST_PORT:
            hear(self, data, addr)

    monkeypatch.setattr(StunProtocol, "datagram_received", hear_relays)


@pytest.fixture
async def network():
    network = Network()
    yield network
    await network.close()


def kinds(mesh):
    """What this end of each link is: "host" or "relay" among others."""
    found = []
    for peer in mesh._peers.values():
        ice = peer.link._rtc._pc.sctp.transport.transport._connection
        found += [pair.local_candidate.type for pair in ice._nominated.values()]
    return found


def use(relay, monkeypatch):
    """Give all meshes this TURN server."""
    username, credential = relay.credentials()
    server = IceServer(urls=(relay.url,), username=username, credential=credential)
    monkeypatch.setattr("tests.links.conftest.Mesh", partial(Mesh, ice_servers=[server]))


@pytest.mark.parametrize("over", ["udp", "tcp", "tls"])
async def test_python_nodes_link_over_a_relay(over, network, relayed_only, monkeypatch, tmp_path):
    async with Relay(tmp_path, over) as relay:
        if over == "tls":
            monkeypatch.setenv("SSL_CERT_FILE", str(relay.certificate))
        use(relay, monkeypatch)
        low, high = network.pair()
        await network.connect_all()
        assert [kinds(mesh) for mesh in network.meshes.values()] == [["relay"], ["relay"]]
        for sender, receiver in ((low, high), (high, low)):
            network.meshes[sender].set_bulk_limit(len(MESSAGE))
            network.meshes[receiver].set_bulk_limit(len(MESSAGE))
            network.meshes[sender].send(receiver, MessageKind.BULK, MESSAGE)
        await network.until(lambda: len(network.messages) == 2)
        assert {(to, peer, data) for to, peer, _, data in network.messages} == {
            (low, high, MESSAGE),
            (high, low, MESSAGE),
        }
    assert relay.secret.decode() not in relay.log


async def test_without_a_relay_such_nodes_do_not_link(network, relayed_only):
    """That is what makes the tests above say something."""
    low, high = network.pair()
    found = await network.meshes[low].connect([high], timeout_s=3)
    assert high in found.failed
    assert network.links == []


async def test_a_mesh_refuses_servers_that_its_library_would_leave_out(network, monkeypatch):
    servers = [IceServer(urls=("turn:one.example:3478", "turn:two.example:3478"), username="me", credential="secret")]
    monkeypatch.setattr("tests.links.conftest.Mesh", partial(Mesh, ice_servers=servers))
    with pytest.raises(LinkError, match="2 TURN servers: a Python node uses one, expected 1 at most"):
        network.add(1)


async def test_nodes_end_soon_when_their_relay_is_gone(network, relayed_only, monkeypatch, tmp_path):
    async with Relay(tmp_path, "udp") as relay:
        use(relay, monkeypatch)
        network.pair()
        await network.connect_all()
    async with asyncio.timeout(40):  # by itself the library takes leave of a relay for 64 s
        await network.close()


@pytest.mark.parametrize(
    ("over", "password", "reason"),
    [("tls", None, "certificate verify failed"), ("udp", "wrong", "401 - Unauthorized")],
)
async def test_a_relay_that_cannot_be_used_is_told_with_the_reason(
    over, password, reason, network, relayed_only, monkeypatch, tmp_path
):
    async with Relay(tmp_path, over) as relay:
        if password is not None:
            monkeypatch.setattr(relay, "credentials", lambda: ("me", password))
        use(relay, monkeypatch)
        rtc._tell_of_relay.cache_clear()
        low, high = network.pair()
        with structlog.testing.capture_logs() as logs:
            found = await network.meshes[low].connect([high], timeout_s=5)
        assert high in found.failed
        (told,) = [entry for entry in logs if entry["event"] == "turn server gives no relay"]
        assert told["server"] == relay.url.removeprefix("turns:").removeprefix("turn:").partition("?")[0]
        assert reason in told["reason"]
        assert password is None or password not in str(logs)


@pytest.fixture
async def relay(tmp_path):
    async with Relay(tmp_path, "udp") as relay:
        yield relay


@pytest.fixture
async def world(relay, tmp_path):
    """It ends before the relay does: who cannot take leave of a TURN server tries for a minute."""
    async with World(tmp_path, timing=TOGETHER) as made:
        yield made


async def test_python_and_nodejs_nodes_train_over_a_relay(relay, world, js, deaf, monkeypatch):
    username, credential = relay.credentials()
    server = RTCIceServer(urls=[relay.url], username=username, credential=credential)
    monkeypatch.setattr(rtc, "RTCConfiguration", lambda **_: RELAYED_ONLY(iceServers=[server]))
    hosts = await world.nodes(2)
    ice = [{"urls": relay.url, "username": username, "credential": credential}]
    peer = await js("js", script="relayed-only.mjs", iceServers=ice)
    author = await world.author()
    terms = {"rounds": 2, "cohort_size": 3, "deadlines": UNHURRIED}
    status = await world.publish(author, build_plan(), **terms)
    await peer.until("result", run=status.run, round=1, survivors=3)
    await peer.ask(command="pairs")
    pairs = await peer.until("pairs")
    assert [kind for kind in pairs["kinds"] if kind is not None] == ["relay", "relay"]
    assert [kinds(host.mesh) for host in hosts] == [["relay", "relay"]] * 2
    assert (await finished(author, status.run)).state == "finished"
    held = await peer.until("result", run=status.run, round=2)
    assert {digest for _, digest, _ in await models(hosts, status.run, 2)} == {held["modelDigest"]}


@pytest.mark.parametrize("url", ["turn:127.0.0.1:3478?transport=tcp", "turns:127.0.0.1:5349", "stuns:127.0.0.1:5349"])
async def test_servers_that_nodejs_would_leave_out_are_refused(url, world, js, tmp_path):
    working = await js("js")
    ice = [{"urls": url, "username": "me", "credential": "secret"}]
    options = working.options | {"folder": str(tmp_path / "other"), "iceServers": ice}
    refused = await asyncio.create_subprocess_exec(
        "node", str(SCRIPTS / "peer.mjs"), json.dumps(options), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await refused.communicate()
    assert refused.returncode == 1
    assert f'LinkError: ICE server "{url}": Node.js uses STUN and TURN over UDP alone'.encode() in errors
    assert b"secret" not in errors
