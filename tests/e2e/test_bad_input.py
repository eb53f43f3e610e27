"""Bad input of every kind: one clear error that names both sides, and the others go on."""

import asyncio
import json
import os
import struct
import sys

import msgspec
import numpy as np
import onnx
import pytest

from plans import SignedPlan
from protocol.encoding import decode_json, digest_of
from protocol.envelope import PLAN_TYPE, RUN_TYPE, Envelope, seal_envelope
from protocol.errors import LimitExceededError
from protocol.identity import Identity
from protocol.link import MessageKind
from protocol.manifest import encode_manifest
from protocol.round.messages import round_tag
from protocol.signaling import compute_round_id
from protocol.terms import encode_terms
from python_node import signaling_blobs
from python_node.datasets import Dataset
from python_node.receipts import open_receipt
from python_node.signaling_errors import SignalingDownError, SignalingRefusedError
from python_node.signaling_link import SignalingSession
from python_node.state import NodeState
from signaling.run_machine import RunMachine
from tests.e2e.data import examples
from tests.e2e.world import finished, models, terms, whole_log


def as_envelope(data: bytes) -> Envelope:
    return decode_json(data, Envelope, what="test envelope", max_bytes=1 << 22)


def signed_envelope(world, plan) -> Envelope:
    return as_envelope(plan.sign(world.author_identity).envelope)


def tampered(envelope: Envelope) -> Envelope:
    """One byte of the payload changed."""
    payload = bytearray(envelope.payload)
    payload[len(payload) // 2] ^= 1
    return msgspec.structs.replace(envelope, payload=bytes(payload))


def unsigned(envelope: Envelope) -> Envelope:
    return msgspec.structs.replace(envelope, signatures=())


def by_somebody_else(envelope: Envelope) -> Envelope:
    """Signed rightly, but by another author than the run's terms."""
    return as_envelope(seal_envelope(Identity(bytes([9]) * 32), PLAN_TYPE, bytes(envelope.payload)))


@pytest.mark.parametrize(
    ("change", "words"),
    [(tampered, "the signature is not by 390d9136"), (unsigned, "expected exactly 1 signature, got 0")],
)
async def test_signaling_refuses_a_plan_that_its_author_did_not_sign(world, plan, change, words):
    author = await world.author()

    with pytest.raises(SignalingRefusedError, match=words) as refused:
        await author.session.publish_plan(change(signed_envelope(world, plan)))

    assert refused.value.code == "bad-signature"
    assert world.url in str(refused.value)
    assert (await author.session.list_plans()).plans == ()


@pytest.mark.parametrize("change", [tampered, unsigned, by_somebody_else])
async def test_a_node_refuses_such_a_plan_from_a_signaling_server_that_lies(world, plan, monkeypatch, change):
    """The server is in the middle: what it says of a plan counts for nothing."""
    real = RunMachine.offer

    def offer(machine):
        honest = real(machine)
        return msgspec.structs.replace(honest, plan_envelope=change(honest.plan_envelope))

    monkeypatch.setattr(RunMachine, "offer", offer)
    host = await world.node("node-0")
    author = await world.author()
    run = (await world.publish(author, plan, cohort_size=3)).run

    refused = await host.diary.until("offer_refused", run=run)

    assert refused.fields["reason"]
    assert not host.diary.of("accepted")
    assert host.node._runs == {}


def with_operator(plan, operator: str) -> SignedPlan:
    """The plan with one node of its predict graph renamed to an operator, digests and all made to fit."""
    function = plan.manifest.functions["predict"]
    model = onnx.ModelProto.FromString(plan.graph("predict"))
    model.graph.node[0].op_type = operator
    graph = model.SerializeToString()
    new, old = digest_of(graph), function.graph
    text = encode_manifest(plan.manifest).replace(old.encode(), new.encode())
    manifest = json.loads(text)
    for blob in manifest["blobs"]:
        if blob["digest"] == new:
            blob["size"] = len(graph)
    manifest["blobs"].sort(key=lambda blob: blob["digest"])
    blobs = {**plan.blobs, new: graph}
    del blobs[old]
    return json.dumps(manifest).encode(), blobs


async def test_a_plan_with_a_forbidden_operator_is_refused_by_every_node(world, plan):
    """Rightly signed by an allowed author: the nodes' own validator is what stands between."""
    hosts = [await world.node(f"node-{i}") for i in range(2)]
    author = await world.author()
    manifest, blobs = with_operator(plan, "RandomNormalLike")
    sealed = seal_envelope(world.author_identity, PLAN_TYPE, manifest)
    digest = await signaling_blobs.publish(author.session, as_envelope(sealed), blobs)
    asked = msgspec.structs.replace(terms(plan, cohort_size=3), plan=digest)
    opened = await author.session.open_run(
        as_envelope(seal_envelope(world.author_identity, RUN_TYPE, encode_terms(asked)))
    )

    for host in hosts:
        refused = await host.diary.until("offer_refused", run=opened.run)
        assert "RandomNormalLike" in refused.fields["reason"]
        assert refused.fields["code"] == "unsafe-plan"


async def test_a_dataset_that_does_not_fit_is_not_asked_for_and_says_why_when_it_is(world, plan, monkeypatch):
    narrow = Dataset(name="digits", arrays={**examples(1), "image": examples(1)["image"][:, :63].copy()})
    misfit = await world.node("misfit", datasets=[narrow])
    others = await world.nodes(3)
    author = await world.author()

    run = (await world.publish(author, plan, cohort_size=3, rounds=1)).run

    assert (await finished(author, run)).state == "finished"
    assert [e.kind for e in misfit.diary.events] == ["registered"]
    assert all(host.diary.of("accepted") for host in others)

    # a signaling server that offers all the same is told both sides of the misfit
    monkeypatch.setattr("signaling.registry.explain_misfit", lambda _manifest, _dataset: None)
    second = (await world.publish(author, plan, cohort_size=4, min_cohort=3, rounds=1)).run
    declined = await misfit.diary.until("declined", run=second)
    assert "63" in declined.fields["reason"]
    assert "64" in declined.fields["reason"]
    assert declined.fields["rule"] == "datasets"
    assert (await finished(author, second)).state == "finished"


async def test_an_unknown_run_is_named_in_the_error(world):
    author = await world.author()
    unknown = "ab" * 32

    for ask in (author.view, author.fetch, author.session.introduce, author.session.watch):
        with pytest.raises(SignalingRefusedError, match="abababab") as refused:
            await ask(unknown)
        assert refused.value.code == "unknown-run"


async def test_signaling_that_is_down_is_named_at_the_start(world):
    await world.stop_signaling()

    with pytest.raises(SignalingDownError, match=world.url.replace(".", r"\.")):
        await SignalingSession.connect(world.url, Identity(os.urandom(32)))


async def test_a_node_command_without_signaling_ends_with_one_line_and_its_status(tmp_path):
    np.savez(tmp_path / "data.npz", **examples(0))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", "node", "ws://127.0.0.1:9", "--json",
        "--data", f"digits={tmp_path / 'data.npz'}", "--state", str(tmp_path / "state"), "--allow-author", "ab" * 32,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 4
    lines = [line for line in err.decode().splitlines() if line.strip()]
    assert len(lines) == 1
    assert "127.0.0.1:9" in lines[0]
    assert json.loads(out.decode().splitlines()[-1])["error"]["code"] == "signaling-down"


# A member of the cohort that sends rubbish.


def random_bytes(_tag: bytes) -> bytes:
    return os.urandom(300)


def rubbish_of_the_round(tag: bytes) -> bytes:
    """The header of a round message, then noise."""
    return bytes([1, 3, 0, 0]) + tag + os.urandom(200)


def too_short(_tag: bytes) -> bytes:
    return b"\x01"


@pytest.mark.parametrize("make", [random_bytes, rubbish_of_the_round, too_short])
@pytest.mark.parametrize("kind", [MessageKind.CONTROL, MessageKind.BULK, MessageKind.MODEL])
async def test_rubbish_from_a_member_over_a_data_channel_stops_no_round(world, plan, kind, make):
    hosts = await world.nodes(4)
    author = await world.author()
    run = (await world.publish(author, plan, cohort_size=4, rounds=4)).run
    await asyncio.gather(*(host.diary.until("round_started", round=2) for host in hosts))

    for number in range(2, 5):
        tag = round_tag(compute_round_id(run, number, 1))
        for other in hosts[1:]:
            for _ in range(20):
                hosts[0].mesh.send(other.peer, kind, make(tag))

    assert (await finished(author, run)).state == "finished"
    assert len(await whole_log(author, run)) == 4
    assert len(await models(hosts[1:], run, 4)) == 1


async def test_a_message_too_large_ends_that_link_with_a_reason_and_the_run_goes_on(world, plan):
    hosts = await world.nodes(4)
    author = await world.author()
    run = (await world.publish(author, plan, cohort_size=4, rounds=4)).run
    await asyncio.gather(*(host.diary.until("round_completed", round=1) for host in hosts))
    reasons = []
    board = hosts[1].node._switchboard
    real = board.mesh._context.on_link

    def on_link(peer, up, reason):
        if not up and peer == hosts[0].peer:
            reasons.append(reason)
        real(peer, up, reason)

    board.mesh._context.on_link = on_link
    limit = hosts[1].node._runs[run].membership.bulk_limit

    hosts[0].mesh.send(hosts[1].peer, MessageKind.BULK, bytes(limit + 1))

    assert (await finished(author, run)).state == "finished"
    assert any(str(limit + 1) in reason and str(limit) in reason for reason in reasons), reasons
    with pytest.raises(LimitExceededError, match=r"65536"):
        hosts[0].mesh.send(hosts[2].peer, MessageKind.CONTROL, bytes(70_000))


async def test_bytes_that_are_no_frame_end_that_link_and_the_run_goes_on(world, plan):
    hosts = await world.nodes(4)
    author = await world.author()
    run = (await world.publish(author, plan, cohort_size=4, rounds=6)).run
    await asyncio.gather(*(host.diary.until("round_completed", round=1) for host in hosts))

    link = hosts[0].mesh._peers[hosts[1].peer].link
    link._rtc.send(struct.pack("<BBHI", 0xFF, 3, 0, 0) + os.urandom(64))

    assert (await finished(author, run)).state == "finished"
    assert len(await whole_log(author, run)) == 6


@pytest.mark.parametrize("kind", ["offer", "answer", "candidate", "sealed"])
async def test_rubbish_through_the_relay_stops_no_round(world, plan, kind):
    hosts = await world.nodes(4)
    author = await world.author()
    run = (await world.publish(author, plan, cohort_size=4, rounds=3)).run
    await hosts[0].diary.until("round_started", round=1)

    via = compute_round_id(run, 1, 1)
    for other in hosts[1:]:
        for size in (1, 200, 4000):
            hosts[0].session.relay(other.peer, via, kind, os.urandom(size))

    assert (await finished(author, run)).state == "finished"
    assert [len(entry.survivors) for entry in await whole_log(author, run)] == [4, 4, 4]


# What owners do not allow.


async def test_an_unknown_author_is_declined_with_a_receipt(world, plan):
    other = Identity(bytes([5]) * 32).peer_id
    host = await world.node("node-0", policy=world.policy(authors=[other]))
    author = await world.author()

    run = (await world.publish(author, plan, cohort_size=3)).run

    declined = await host.diary.until("declined", run=run)
    assert declined.fields["rule"] == "authors"
    assert world.author_identity.peer_id in declined.fields["reason"]
    receipt = open_receipt(host.state.receipts(run)[0], node=host.peer)
    assert (receipt.decision, receipt.rule, receipt.author) == ("declined", "authors", world.author_identity.peer_id)
    assert receipt.reason == declined.fields["reason"]
    assert host.state.runs() == []


async def test_a_cohort_below_the_owners_minimum_is_declined(world, plan):
    host = await world.node("node-0", policy=world.policy(min_cohort=5, min_survivors=5))
    author = await world.author()

    small = (await world.publish(author, plan, cohort_size=4, min_cohort=4, min_survivors=4)).run
    few = (await world.publish(author, plan, cohort_size=8, min_cohort=6, min_survivors=4)).run

    declined = await host.diary.until("declined", run=small)
    assert declined.fields["rule"] == "min_cohort"
    assert "4" in declined.fields["reason"]
    assert "5" in declined.fields["reason"]
    assert (await host.diary.until("declined", run=few)).fields["rule"] == "min_survivors"
    assert {open_receipt(item).decision for item in host.state.receipts()} == {"declined"}


async def test_what_an_owner_was_asked_and_gave_is_in_receipts(world, plan):
    hosts = await world.nodes(3)
    author = await world.author()
    run = (await world.publish(author, plan, cohort_size=3, rounds=2)).run
    await finished(author, run)
    logged = {entry.round: entry.model_digest for entry in await whole_log(author, run)}

    for host in hosts:
        await host.close()
    world.hosts.clear()

    for host in hosts:
        with NodeState.open(world.folder / host.diary.name) as state:
            receipts = [open_receipt(item, node=host.peer) for item in state.receipts(run)]
        rounds = {r.completed.round: r.completed.model_digest for r in receipts if r.completed is not None}
        assert rounds == logged
