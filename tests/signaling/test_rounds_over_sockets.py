"""Whole runs over real websockets."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from protocol.signaling import (
    Offer,
    PeerBack,
    PeerGone,
    Relayed,
    RoundAborted,
    RoundLogged,
    RoundStart,
    RunChanged,
    check_result_signature,
    result_payload,
)
from python_node.signaling_errors import SignalingRefusedError
from python_node.signaling_events import RelayFailed
from tests.signaling.world import METRICS, World, dataset, identity, model_after


async def starts_of(nodes):
    return await asyncio.gather(*(node.next(RoundStart) for node in nodes))


async def test_a_run_goes_through_its_rounds_and_its_log_can_be_checked_offline(world: World):
    author, status, nodes = await world.cohort(5)
    await author.session.watch(status.run)
    model = status.model_digest
    for number in (1, 2, 3):
        starts = await starts_of(nodes)
        assert {start.round for start in starts} == {number}
        assert {start.model_digest for start in starts} == {model}
        assert len({start.round_id for start in starts}) == 1
        await asyncio.gather(*(node.report(start) for node, start in zip(nodes, starts, strict=True)))
        model = model_after(starts[0])
    while (await author.next(RunChanged)).status.state != "finished":
        pass
    page = await author.session.log(status.run)
    assert [entry.round for entry in page.entries] == [1, 2, 3]
    assert page.next is None
    for entry in page.entries:
        payload = result_payload(entry.round_id, entry.model_digest, entry.survivors, entry.metrics)
        assert len(entry.signatures) >= 4
        for signature in entry.signatures:
            check_result_signature(entry.cohort[signature.index], payload, signature.signature)
        assert entry.metrics == METRICS
    assert (await author.session.get_run(status.run)).status.model_digest == model


async def test_offers_go_to_nodes_whose_dataset_fits_and_to_no_others(world: World):
    author = await world.author()
    fits = await world.node("fits")
    misfit = await world.node("misfit", registered=False)
    await misfit.session.register((dataset(width=9),))
    status = await world.open_run(author)
    assert (await fits.next(Offer)).run == status.run
    with pytest.raises(SignalingRefusedError, match="reads 'x' as float32") as refused:
        await misfit.session.accept(status.run)
    assert refused.value.code == "schema-mismatch"
    assert misfit.seen.empty()


async def test_a_round_is_logged_without_a_member_that_vanished(world: World):
    _, _, nodes = await world.cohort(5)
    starts = await starts_of(nodes)
    await nodes[4].close()
    gone = await nodes[0].next(PeerGone)
    assert gone.peer == nodes[4].identity.peer_id
    survivors = tuple(i for i, member in enumerate(starts[0].members) if member.peer != nodes[4].identity.peer_id)
    await asyncio.gather(*(node.report(starts[0], survivors=survivors) for node in nodes[:4]))
    nexts = await starts_of(nodes[:4])
    assert all(start.round == 2 and len(start.members) == 4 for start in nexts)


async def test_a_hopeless_attempt_is_aborted_at_once_and_tried_again(world: World):
    _, status, nodes = await world.cohort(5)
    starts = await starts_of(nodes)
    for node in nodes[:2]:
        await node.session.round_failed(status.run, round_number=1, attempt=1, reason="no link to three peers")
    aborted = await nodes[4].next(RoundAborted)
    assert "no link to three peers" in aborted.reason
    again = await starts_of(nodes)
    assert {(start.round, start.attempt) for start in again} == {(1, 2)}
    assert again[0].round_id != starts[0].round_id


async def test_a_run_fails_after_its_retries(world: World):
    author, status, nodes = await world.cohort(3, retries=1)
    await author.session.watch(status.run)
    for attempt in (1, 2):
        await starts_of(nodes)
        await nodes[0].session.round_failed(status.run, round_number=1, attempt=attempt, reason="too slow")
    while (changed := (await author.next(RunChanged)).status).state != "failed":
        pass
    assert "2 attempts at round 1" in changed.reason
    assert "too slow" in changed.reason


async def test_results_that_disagree_abort_the_attempt(world: World):
    _, _, nodes = await world.cohort(3)
    starts = await starts_of(nodes)
    await nodes[0].report(starts[0], model="aa" * 32)
    await nodes[1].report(starts[0], model="bb" * 32)
    assert "2 different results" in (await nodes[2].next(RoundAborted)).reason


async def test_a_result_signed_by_somebody_else_is_refused(world: World):
    _, _, nodes = await world.cohort(5)
    starts = await starts_of(nodes)
    forged = nodes[1].signature(starts[0], model_after(starts[0]), (0, 1, 2, 3, 4))
    own_index = nodes[0].signature(starts[0], "00" * 32, (0,)).index
    with pytest.raises(SignalingRefusedError) as refused:
        await nodes[0].report(starts[0], signatures=(msgspec.structs.replace(forged, index=own_index),))
    assert refused.value.code == "bad-signature"


async def test_a_stranger_cannot_report_a_round(world: World):
    _, _, nodes = await world.cohort(3, cohort_size=3)
    starts = await starts_of(nodes)
    stranger = await world.node("stranger")
    with pytest.raises(SignalingRefusedError) as refused:
        await stranger.report(starts[0], signatures=(nodes[0].signature(starts[0], "00" * 32, (0,)),))
    assert refused.value.code == "not-in-cohort"


async def test_one_reporter_can_carry_the_signatures_of_all(world: World):
    _, _, nodes = await world.cohort(5)
    starts = await starts_of(nodes)
    everyone = (0, 1, 2, 3, 4)
    signatures = tuple(node.signature(starts[0], model_after(starts[0]), everyone) for node in nodes)
    await nodes[0].report(starts[0], signatures=signatures)
    assert (await nodes[4].next(RoundLogged)).entry.round == 1


async def test_members_relay_to_each_other_and_strangers_do_not(world: World):
    _, _, nodes = await world.cohort(3, cohort_size=3)
    start = (await starts_of(nodes))[0]
    a, b, _ = nodes
    a.session.relay(b.identity.peer_id, start.round_id, "offer", b"sdp")
    got = await b.next(Relayed)
    assert (got.sender, got.via, got.kind, got.payload) == (a.identity.peer_id, start.round_id, "offer", b"sdp")
    stranger = await world.node("stranger")
    stranger.session.relay(b.identity.peer_id, start.round_id, "offer", b"sdp")
    assert (await stranger.next(RelayFailed)).code == "not-in-cohort"
    a.session.relay(stranger.identity.peer_id, start.round_id, "offer", b"sdp")
    assert (await a.next(RelayFailed)).code == "not-in-cohort"
    await b.close()
    await a.next(PeerGone)
    a.session.relay(b.identity.peer_id, start.round_id, "candidate", b"c")
    assert (await a.next(RelayFailed)).code == "peer-offline"


async def test_a_late_joiner_is_introduced_fetches_and_is_named_in_the_next_cohort(world: World):
    _, status, nodes = await world.cohort(3, rounds=4, cohort_size=4)
    starts = await starts_of(nodes)
    await asyncio.gather(*(node.report(starts[0]) for node in nodes))
    second = await starts_of(nodes)
    late = await world.node("late")
    offer = await late.next(Offer)
    assert offer.round == 1
    await late.session.accept(status.run)
    meeting = await late.session.introduce(status.run)
    assert {holder.peer for holder in meeting.holders} == {node.identity.peer_id for node in nodes}
    late.session.relay(nodes[0].identity.peer_id, meeting.via, "offer", b"sdp")
    assert (await nodes[0].next(Relayed)).sender == late.identity.peer_id
    nodes[0].session.relay(late.identity.peer_id, meeting.via, "answer", b"sdp")
    assert (await late.next(Relayed)).kind == "answer"
    await asyncio.gather(*(node.report(second[0]) for node in nodes))
    logged = (await late.next(RoundLogged)).entry
    await late.session.ready(status.run, round_number=2, model_digest=logged.model_digest)
    third = await starts_of([*nodes, late])
    assert all(start.round == 3 and len(start.members) == 4 for start in third)


async def test_a_stranger_is_not_introduced(world: World):
    _, status, _ = await world.cohort(3)
    stranger = await world.node("stranger")
    with pytest.raises(SignalingRefusedError) as refused:
        await stranger.session.introduce(status.run)
    assert refused.value.code == "not-allowed"


async def test_only_the_author_stops_a_run(world: World):
    author, status, nodes = await world.cohort(3)
    with pytest.raises(SignalingRefusedError, match="cannot stop it"):
        await nodes[0].session.stop_run(status.run)
    await author.session.stop_run(status.run, "enough")
    while (changed := (await nodes[0].next(RunChanged)).status).state != "stopped":
        pass
    assert changed.reason == "enough"


async def test_a_run_with_members_is_invisible_to_others(world: World):
    ids = tuple(sorted(identity(f"node-{i}").peer_id for i in range(3)))
    _, status, nodes = await world.cohort(3, members=ids, cohort_size=3)
    stranger = await world.node("stranger")
    assert (await stranger.session.list_runs()).runs == ()
    for ask in (stranger.session.get_run, stranger.session.watch, stranger.session.log):
        with pytest.raises(SignalingRefusedError) as refused:
            await ask(status.run)
        assert refused.value.code == "unknown-run"
    with pytest.raises(SignalingRefusedError) as refused:
        await stranger.session.accept(status.run)
    assert refused.value.code == "not-allowed"
    assert len((await nodes[0].session.list_runs()).runs) == 1


async def learned_of_round(node, number: int) -> str:
    """The model a node is told of, by the round's log or, where it reconnected later, by the run's status."""
    while True:
        event = await node.next((RoundLogged, RunChanged))
        if isinstance(event, RoundLogged) and event.entry.round == number:
            return event.entry.model_digest
        if isinstance(event, RunChanged) and event.status.round == number:
            return event.status.model_digest


async def first_start(nodes, number: int) -> RoundStart:
    """The start of a round, from whichever node is told of it first."""

    async def wait(node):
        while (start := await node.next(RoundStart)).round != number:
            pass
        return start

    tasks = [asyncio.create_task(wait(node)) for node in nodes]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return done.pop().result()


async def test_restart_in_mid_round_loses_nothing(world: World):
    author, status, nodes = await world.cohort(5, rounds=2)
    starts = await starts_of(nodes)
    await nodes[0].report(starts[0])
    await world.stop()
    reports = [asyncio.create_task(node.report(starts[0])) for node in nodes[1:]]
    await world.start()
    await asyncio.gather(*reports)
    for node in nodes:
        assert await learned_of_round(node, 1) == model_after(starts[0])
        await node.session.ready(status.run, round_number=1, model_digest=model_after(starts[0]))
    # Who reconnected last may be too late for the next cohort; its members finish the run.
    second = await first_start(nodes, 2)
    members = [node for node in nodes if node.identity.peer_id in {m.peer for m in second.members}]
    assert len(members) >= 3
    await asyncio.gather(*(node.report(second) for node in members))
    assert await learned_of_round(members[0], 2) == model_after(second)
    await world.stop()
    await world.start()
    page = await author.session.log(status.run)
    assert [entry.round for entry in page.entries] == [1, 2]
    assert (await author.session.get_run(status.run)).status.state == "finished"
    assert len((await author.session.list_plans()).plans) == 1


async def test_a_member_that_reconnects_is_given_the_open_round_again(world: World):
    _, status, nodes = await world.cohort(3, cohort_size=3)
    starts = await starts_of(nodes)
    await nodes[0].close()
    await nodes[1].next(PeerGone)
    back = await world.node("node-0")
    await nodes[1].next(PeerBack)
    await back.session.accept(status.run)
    again = await back.next(RoundStart)
    assert again.round_id == starts[0].round_id
