"""A shared body and a head of each peer's own: the heads never leave, and know what a common one cannot."""

import base64

import numpy as np
import pytest
import torch
from torch import nn

import plans
from plans.onnx_runtime import onnxruntime
from protocol.secagg.apply import model_digest
from python_node.datasets import Dataset
from python_node.errors import StateError
from python_node.personal import personal_model
from python_node.state import NodeState
from python_node.training import LocalTrainer, split_model
from tests.e2e.data import examples
from tests.e2e.wiretap import Haystack, Needles, Wiretap, every_form
from tests.e2e.world import finished

NAMES = ("node-0", "node-1", "node-2", "node-3")
ROUNDS = 10


def trace(local):
    torch.manual_seed(3)
    return plans.trace(
        nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 10)),
        loss="cross_entropy",
        optimizer=plans.SGD(lr=0.5),
        inputs={"image": plans.Field("float32", (64,))},
        targets={"label": plans.Field("int64")},
        metrics=["accuracy"],
        batch_size=16,
        local=local,
        name="personal",
        version="1",
    )


@pytest.fixture(scope="module")
def personal():
    return trace(["2.*"])


@pytest.fixture(scope="module")
def common():
    return trace([])


def own_examples(number, seed, count=96):
    """An owner who calls the prototypes by names of his own: nobody's head fits another's data."""
    found = examples(100 * number + seed, count)
    return {"image": found["image"], "label": (found["label"] + 3 * number) % 10}


async def started(world, plan, **changes):
    """Four nodes in a run; those that are not to end by themselves are stopped by the test."""
    hosts = [
        await world.node(name, datasets=[Dataset(name="own", arrays=own_examples(number, 0))])
        for number, name in enumerate(NAMES)
    ]
    author = await world.author()
    given = {"rounds": 1000, "cohort_size": 5, "min_cohort": 3}
    return hosts, author, (await world.publish(author, plan, **given | changes)).run


async def completed(author, run, hosts):
    """The run ended after all its rounds, and every node knows."""
    assert (await finished(author, run)).state == "finished"
    for host in hosts:
        await host.diary.until("round_completed", run=run, round=ROUNDS)


def membership_of(host, run):
    return host.node._runs[run].membership


def accuracy(plan, host, run, number):
    """Of a node's model, with what is its own, on examples of its owner that nobody trained on."""
    membership = membership_of(host, run)
    length = plan.manifest.shared_count + plan.manifest.buffer_count
    theta, buffers = split_model(plan, membership.model[:length], membership._trainer.local)
    return plans.Executor(plan).evaluate(theta, buffers, own_examples(number, 7, 300)).mean("accuracy")


async def test_own_heads_on_a_common_body_beat_a_common_head_on_every_shard(world, personal, common):
    whole = {"rounds": ROUNDS, "cohort_size": 4, "min_cohort": 4, "epochs": 3}
    hosts, author, run = await started(world, personal, **whole)
    await completed(author, run, hosts)
    own = [accuracy(personal, host, run, number) for number, host in enumerate(hosts)]
    models = {host.model(run) for host in hosts}
    assert len(models) == 1
    fetched = await author.fetch(run)
    assert fetched.digest == model_digest(fetched.values) == models.pop()[1]
    assert len(fetched.values) == 64 * 24 + 24
    start = personal.initial("theta")[: len(fetched.values)]
    assert np.abs(fetched.values - start).max() > 0.05
    assert len({membership_of(host, run)._trainer.local.tobytes() for host in hosts}) == 4

    again = (await world.publish(author, common, **whole)).run
    await completed(author, again, hosts)
    shared = [accuracy(common, host, again, number) for number, host in enumerate(hosts)]
    assert all(mine > 0.7 > theirs + 0.2 for mine, theirs in zip(own, shared, strict=True)), (own, shared)


async def test_no_local_value_leaves_a_node_in_any_form(world, personal, monkeypatch):
    tap, heads = Wiretap(monkeypatch), []
    real = LocalTrainer.adopt

    def adopt(trainer):
        before = trainer.local
        real(trainer)
        if trainer.local is not before:
            heads.extend([trainer.local, trainer.local - before])

    monkeypatch.setattr(LocalTrainer, "adopt", adopt)
    hosts, author, run = await started(world, personal, server_optimizer="fedadam")
    await hosts[0].diary.until("round_completed", round=3)
    late = await world.node("late", datasets=[Dataset(name="own", arrays=own_examples(5, 0))])
    await late.diary.until("fetched")
    await late.diary.until("round_completed")
    await author.fetch(run)
    await author.session.stop_run(run, "seen enough")
    await finished(author, run)

    everything = tap.everything
    assert len(heads) > 20
    for form, texts in every_form(heads).items():
        needles = Needles(texts)
        assert needles.kept > 0.2 * needles.total, form
        assert needles.found_in(everything) == 0, form
    assert {len(update) for update in tap.updates} == {personal.manifest.shared_count}

    # positive controls: what does leave is found, and so would a head be that was sent
    assert Needles(tap.masked).found_in(Haystack(tap.channel)) > 0
    leak = membership_of(hosts[0], run)._trainer.local.astype("<f4").tobytes()
    hosts[0].session.relay(hosts[1].peer, "0" * 64, "offer", leak)
    assert Needles([base64.b64encode(leak)]).found_in(Haystack(tap.websocket)) > 0


async def test_local_values_survive_a_restart_and_begin_anew_for_who_comes_late(world, personal):
    hosts, author, run = await started(world, personal)
    await hosts[2].diary.until("round_completed", round=2)
    going = membership_of(hosts[2], run)
    await world.hosts.pop(NAMES[2]).close()
    kept = going._trainer.local
    assert not np.array_equal(kept, personal.initial("local"))
    found = {}

    async def come(name, number):
        def note(event):
            if event.kind == "accepted":
                found[name] = membership_of(world.hosts[name], run)._trainer.local.tobytes()

        host = await world.node(name, datasets=[Dataset(name="own", arrays=own_examples(number, 0))], on_event=note)
        await host.diary.until("accepted", run=run)
        return host

    test = own_examples(2, 7, 300)
    with NodeState.open(world.folder / NAMES[2]) as state:
        mine = personal_model(state, run[:12])
    with pytest.raises(StateError, match="0 runs of that name"), NodeState.open(world.folder / NAMES[2]) as state:
        personal_model(state, "0" * 64)
    outputs = onnxruntime.InferenceSession(mine.onnx).run(None, {"image": test["image"]})[0]
    theta, buffers = split_model(personal, going.model[: personal.manifest.shared_count], kept)
    np.testing.assert_array_equal(outputs, plans.Executor(personal).predict(theta, buffers, {"image": test["image"]}))
    assert (mine.round, mine.local_count) == (going.round, 250)

    back, late = await come(NAMES[2], 2), await come("late", 5)
    assert found == {NAMES[2]: kept.tobytes(), "late": personal.initial("local").tobytes()}
    for host in (back, late):
        await host.diary.until("round_completed", run=run)
    await author.session.stop_run(run, "seen enough")
    await finished(author, run)
    assert membership_of(late, run)._trainer.local.tobytes() != found["late"]
