"""What goes wrong around a round: signaling gone, peers killed, holders that lie."""

import asyncio

import numpy as np
import pytest

from protocol.errors import LinkError
from protocol.identity import Identity
from python_node.author import Author
from python_node.errors import StateError
from python_node.mesh import MeshConfig
from python_node.signaling_errors import SignalingRefusedError
from tests.e2e.world import MESH, finished, models, whole_log


async def test_linked_peers_finish_a_round_without_signaling_and_the_log_is_complete_afterwards(world, plan, gate):
    hosts = await world.nodes(4)
    author = await world.author()
    run = (await world.publish(author, plan, cohort_size=4, rounds=4)).run
    await asyncio.gather(*(host.diary.until("round_started", round=2) for host in hosts))

    await world.stop_signaling()
    gate.open()
    digests = {
        (await host.diary.until("round_completed", round=2)).fields["model_digest"] for host in hosts
    }  # while nobody is there to signal
    assert world.server is None
    assert len(digests) == 1
    await world.start_signaling()

    status = await finished(author, run)

    assert (status.state, status.round) == ("finished", 4)
    entries = await whole_log(author, run)
    assert [entry.round for entry in entries] == [1, 2, 3, 4]
    assert [entry.attempt for entry in entries] == [1, 1, 1, 1]
    assert entries[1].model_digest == digests.pop()
    assert len(await models(hosts, run, 4)) == 1


async def test_an_attempt_that_fails_while_signaling_is_away_is_tried_again(world, plan, gate, monkeypatch):
    """Signaling forgets who is ready when sessions end: nodes must say so again, or the run waits for ever."""
    hosts = await world.nodes(3)
    author = await world.author()
    run = (await world.publish(author, plan, cohort_size=3, rounds=2)).run
    await asyncio.gather(*(host.diary.until("round_started", round=2) for host in hosts))

    await world.stop_signaling()
    for host in hosts:
        host.node._runs[run].membership.attempt.abort("the test ends it")
    await asyncio.gather(*(host.diary.until("round_failed", round=2) for host in hosts))
    gate.open()
    await world.start_signaling()

    assert (await finished(author, run)).state == "finished"
    assert (await whole_log(author, run))[1].attempt == 2


async def test_a_node_whose_disk_is_full_ends_with_the_reason_and_the_others_go_on(world, plan, gate, caplog):
    """It may not stay and be named again: an attempt each time would use up what the run has."""
    hosts = await world.nodes(4)
    author = await world.author()
    run = (await world.publish(author, plan, rounds=4, retries=1)).run
    await asyncio.gather(*(host.diary.until("round_started", round=2) for host in hosts))

    full = world.hosts.pop("node-3")

    def record(*_):
        raise StateError("state database /home/alice/node.db: database or disk is full")

    # the attempt under way and every one to come
    full.node._runs[run].membership.attempt._record = record
    full.state.record = record
    gate.open()

    assert (await finished(author, run)).state == "finished"
    assert (await full.diary.until("error")).fields["code"] == "bad-state"
    with pytest.raises(StateError, match="disk is full"):
        await full.close()
    assert len(await models(hosts[:3], run, 4)) == 1
    assert "Traceback" not in caplog.text
    for host in hosts[:3]:
        assert not any("/home/alice" in str(event.fields) for event in host.diary.events)


async def test_a_node_that_stops_in_a_round_is_told_and_the_others_go_on(world, plan, gate):
    hosts = await world.nodes(5)
    author = await world.author()
    run = (await world.publish(author, plan, rounds=4)).run
    await asyncio.gather(*(host.diary.until("round_started", round=2) for host in hosts))

    leaving = world.hosts.pop("node-4")
    await leaving.close()
    gate.open()

    assert (await finished(author, run)).state == "finished"
    entries = await whole_log(author, run)
    assert len(entries) == 4
    assert all(len(entry.survivors) >= 4 for entry in entries)
    assert len(await models(hosts[:4], run, 4)) == 1


async def test_a_node_comes_back_with_its_state_and_fetches_what_it_missed(world, plan, make_gate):
    gate = make_gate(free=6)
    hosts = await world.nodes(4)
    author = await world.author()
    run = (await world.publish(author, plan, rounds=12)).run
    await hosts[3].diary.until("round_completed", round=2)
    identity = hosts[3].peer
    await world.hosts.pop("node-3").close()
    await hosts[0].diary.until("round_completed", round=6)

    back = await world.node("node-3")

    assert back.peer == identity
    assert (await back.diary.until("fetched")).fields["round"] >= 6
    gate.open()
    await back.diary.until("round_completed")
    await finished(author, run)
    assert len(await models([back, *hosts[:3]], run, 12)) == 1


async def first_holder(world, author, run):
    """The holder that a fetch asks first, with the order made fixed."""
    listed = (await author.session.introduce(run)).holders
    return next(host for host in world.hosts.values() if host.peer == listed[0].peer)


def lie(host, change) -> list[str]:
    """Have a node serve other bytes than it holds; gives the list of its lies."""
    models = host.node._switchboard.models
    real, told = models._lookup, []

    def lookup(run, number, digest):
        data = real(run, number, digest)
        told.append(digest)
        return None if data is None else change(data)

    models._lookup = lookup
    return told


def one_bit(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    "change", [one_bit, lambda data: data[:-4], lambda data: data + bytes(4), lambda _data: None],
    ids=["one bit", "too short", "too long", "nothing"],
)  # fmt: skip
async def test_a_lying_holder_is_refused_and_another_one_asked(world, plan, monkeypatch, change):
    monkeypatch.setattr("python_node.switchboard.random.random", lambda: 0.0)
    hosts = await world.nodes(3)
    author = await world.author()
    run = (await world.publish(author, plan, cohort_size=3, rounds=1)).run
    await finished(author, run)
    liar = await first_holder(world, author, run)
    told = lie(liar, change)

    fetched = await author.fetch(run)

    assert len(told) == 1
    honest = next(host for host in hosts if host is not liar)
    assert fetched.values.tobytes() == honest.model(run)[2]


async def test_a_fetch_from_liars_alone_fails_and_names_every_one_of_them(world, plan):
    hosts = await world.nodes(3)
    author = await world.author()
    run = (await world.publish(author, plan, cohort_size=3, rounds=1)).run
    await finished(author, run)
    for host in hosts:
        lie(host, one_bit)

    with pytest.raises(LinkError) as refused:
        await author.fetch(run)

    for host in hosts:
        assert f"model from {host.peer[:8]} has digest" in str(refused.value)


async def test_a_fetch_survives_a_holder_that_ends_in_the_middle(world, plan, monkeypatch):
    monkeypatch.setattr("python_node.switchboard.random.random", lambda: 0.0)
    await world.nodes(3)
    author = await world.author()
    run = (await world.publish(author, plan, cohort_size=3, rounds=1)).run
    await finished(author, run)
    first = await first_holder(world, author, run)
    models = first.node._switchboard.models

    async def leave(peer, request, run_id):
        await first.mesh.release([peer], reason="gone in the middle")

    monkeypatch.setattr(models, "_send_model", leave)

    fetched = await author.fetch(run)

    assert np.isfinite(fetched.values).all()


async def test_an_author_that_nobody_serves_is_told_who_was_asked(world, plan):
    await asyncio.gather(*(world.node(f"node-{i}", policy=world.policy(serve_models=False)) for i in range(3)))
    author = await world.author()
    run = (await world.publish(author, plan, cohort_size=3, rounds=1)).run
    await finished(author, run)

    with pytest.raises(LinkError, match="does not share this run's model"):
        await author.fetch(run)


async def test_a_stranger_gets_no_model(world, plan):
    await world.nodes(3)
    author = await world.author()
    run = (await world.publish(author, plan, cohort_size=3, rounds=1)).run
    await finished(author, run)
    stranger = await Author.connect(world.url, Identity(bytes([7]) * 32))
    try:
        with pytest.raises(SignalingRefusedError) as refused:
            await stranger.fetch(run)
    finally:
        await stranger.close()
    assert refused.value.code == "not-allowed"
    assert run[:8] in str(refused.value)


def test_the_mesh_of_the_tests_differs_from_the_products_in_times_alone():
    changed = {name for name in MeshConfig.__dataclass_fields__ if getattr(MESH, name) != getattr(MeshConfig(), name)}
    assert changed <= {"ping_after_s", "gone_after_s"}
