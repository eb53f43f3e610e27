"""Links between Python and JavaScript nodes whose set-up messages come late, or more than once."""

import asyncio
import hashlib

import pytest

from examples.digits import build_plan
from protocol.identity import Identity
from tests.e2e.world import TOGETHER, UNHURRIED, World, finished


@pytest.fixture(scope="session")
def plan():
    return build_plan()


@pytest.fixture
async def world(tmp_path):
    async with World(tmp_path, timing=TOGETHER) as made:
        yield made


def seed_above(others):
    """Of an identity with a higher id than all of these: in their eyes it is polite."""
    seeds = (hashlib.sha256(b"%d" % number).digest() for number in range(1 << 20))
    return next(seed for seed in seeds if Identity(seed).peer_id > max(others))


class Late:
    """Holds a host's offers to one peer back until that peer's own offer came, and keeps their order."""

    def __init__(self, host, other):
        self.sent, self.received = [], []
        mesh = host.mesh
        send, receive = mesh._context.send_signal, mesh.receive_signal
        crossed, order = asyncio.Event(), asyncio.Lock()

        async def send_late(to, kind, payload):
            if to != other:
                await send(to, kind, payload)
                return
            async with order:
                await crossed.wait()
                self.sent.append(kind)
                await send(to, kind, payload)

        def receive_first(sender, kind, payload):
            if sender == other:
                self.received.append(kind)
            receive(sender, kind, payload)
            if sender == other and kind == "offer":
                crossed.set()

        mesh._context.send_signal = send_late
        mesh.receive_signal = receive_first


async def test_a_late_offer_of_a_python_node_that_crosses_one_of_javascript_is_answered_once(world, plan, js):
    """The Python node sends its offer once more then (spec 04 §3); a second answer would belong to no attempt."""
    hosts = await world.nodes(2)
    seed = seed_above([host.peer for host in hosts])
    late = [Late(host, Identity(seed).peer_id) for host in hosts]
    peer = await js("polite", seed=seed.hex())
    author = await world.author()
    options = {"rounds": 2, "cohort_size": 3, "min_cohort": 3, "deadlines": UNHURRIED}
    status = await world.publish(author, plan, **options)
    ended = await hosts[0].diary.until("round_completed", "round_failed", run=status.run)
    assert (ended.kind, ended.fields.get("survivors")) == ("round_completed", 3)
    assert [(host.sent, host.received) for host in late] == [(["offer", "offer"], ["offer", "answer"])] * 2
    await peer.until("result", round=2, survivors=3)
    assert (await finished(author, status.run)).state == "finished"
