"""Plans whose heads stay on the device, with JavaScript nodes among Python nodes."""

import base64
from pathlib import Path

import numpy as np
import pytest

import plans
from examples.digits import build_plan
from tests.e2e.data import EXAMPLES
from tests.e2e.wiretap import Haystack, Needles, every_form
from tests.e2e.world import TOGETHER, World, finished, models
from tests.js.process import owned_examples

ROUNDS = 3
WHOLE = {"batch_size": EXAMPLES, "epochs": 2, "learning_rate": 0.5}
"""Batches of all examples: then the order in which a language shuffles them does not matter."""


@pytest.fixture(scope="session")
def plan():
    return build_plan(local=["2.*"])


@pytest.fixture
async def world(tmp_path):
    async with World(tmp_path, timing=TOGETHER) as made:
        yield made


def values(text):
    return np.frombuffer(bytes.fromhex(text), "<f4").astype(np.float32)


def owns(peer):
    """What a peer told that it holds: by round, the shared model and its own parameters."""
    return {event["round"]: (values(event["bytes"]), values(event["local"])) for event in peer.of("own")}


async def test_heads_differ_train_as_in_python_and_predict_over_a_body_of_equal_bits(world, plan, js):
    hosts = await world.nodes(2)
    peers = [await js("one", own=True), await js("two", own=True)]
    author = await world.author()
    status = await world.publish(author, plan, rounds=ROUNDS, cohort_size=4, min_cohort=4, **WHOLE)
    assert (await finished(author, status.run)).state == "finished"
    (expected,) = await models(hosts, status.run, ROUNDS)
    assert len(expected[2]) == 4 * plan.manifest.shared_count == 4 * (64 * 32 + 32)
    heads = set()
    executor = plans.Executor(plan)
    for peer in peers:
        await peer.until("own", round=ROUNDS)
        held = owns(peer)
        assert held[ROUNDS][0].tobytes() == expected[2]
        start = plan.manifest.shared_count
        assert held[0][1].tobytes() == plan.initial("local").tobytes()
        for number in range(ROUNDS):
            # the Python executor, from what the peer had before the round
            theta = np.concatenate(held[number]) if number else plan.initial("theta")
            state, none = plan.initial("optimizer_state"), plan.initial("buffers")
            trained = executor.train(
                theta, state, none, owned_examples(peer.name), **{**WHOLE, "seed": b"any"}
            ).theta[start:]
            np.testing.assert_allclose(held[number + 1][1], trained, rtol=0, atol=1e-5)
            assert np.abs(held[number + 1][1] - held[number][1]).max() > 1e-3
        heads.add(held[ROUNDS][1].tobytes())

        image = owned_examples("others")["image"][:9]
        await peer.ask(command="predict", run=status.run, inputs=image.ravel().tolist())
        outputs = np.reshape((await peer.until("predicted"))["outputs"], (9, 10))
        mine = executor.predict(np.concatenate(held[ROUNDS]), plan.initial("buffers"), {"image": image})
        np.testing.assert_allclose(outputs, mine, rtol=0, atol=1e-5)
        common = executor.predict(
            np.concatenate([held[ROUNDS][0], held[0][1]]), plan.initial("buffers"), {"image": image}
        )
        assert np.abs(outputs - common).max() > 0.01
        assert peer.of("error") == []
    assert len(heads) == 2


async def test_own_values_survive_the_death_of_the_process_and_begin_anew_for_who_comes_late(world, plan, js):
    await world.nodes(2)
    peer = await js("mortal", own=True, dies=2)
    author = await world.author()
    status = await world.publish(author, plan, rounds=1000, cohort_size=5, min_cohort=3)
    await peer.until("result", round=2)
    assert await peer.exit_code() == 3
    kept = owns(peer)[2]
    assert not np.array_equal(kept[1], plan.initial("local"))

    late = await js("late", own=True)
    await late.until("result")
    again = await js("mortal", own=True)
    first = await again.until("own")
    assert (first["round"], values(first["local"]).tobytes()) == (2, kept[1].tobytes())
    assert values(first["bytes"]).tobytes() == kept[0].tobytes()
    assert values(late.of("own")[0]["local"]).tobytes() == plan.initial("local").tobytes()
    result = await again.until("result")
    assert result["round"] > 2
    assert owns(again)[result["round"]][1].tobytes() != kept[1].tobytes()
    await author.session.stop_run(status.run, "seen enough")
    await finished(author, status.run)


async def test_no_own_value_is_in_a_byte_that_a_javascript_node_sends(world, plan, js, tmp_path):
    tap = tmp_path / "tap"
    hosts = await world.nodes(2)
    peer = await js("tapped", tap=str(tap), own=True, heldOut=16)
    author = await world.author()
    options = {"server_optimizer": "fedadam", "server_learning_rate": 0.05}
    status = await world.publish(author, plan, rounds=1000, cohort_size=4, min_cohort=3, **options)
    await peer.until("result", round=3)
    late = await world.node("late")
    await late.diary.until("fetched")
    await peer.until("result", round=(await late.diary.until("round_completed")).fields["round"])

    def sent(kind):
        return Haystack([Path(f"{tap}.{kind}").read_bytes()])

    held = owns(peer)
    heads = [local for _, local in held.values()]
    heads += [local - held[number - 1][1] for number, (_, local) in held.items() if number - 1 in held]
    assert len(heads) > 6
    everything = [sent("websocket"), sent("channel")]
    for form, texts in every_form(heads).items():
        needles = Needles(texts)
        assert needles.kept > 0.2 * needles.total, form
        assert [needles.found_in(haystack) for haystack in everything] == [0, 0], form

    # positive controls: what is sent is found, and so would these values be
    digest = peer.of("result")[0]["modelDigest"].encode()
    assert Needles([digest]).found_in(sent("websocket")) > 0
    await peer.ask(command="leak", run=status.run, peer=hosts[0].peer)
    leak = bytes.fromhex((await peer.until("leaked"))["bytes"])
    assert Needles([leak]).found_in(sent("channel")) > 0
    assert Needles([base64.b64encode(leak)]).found_in(sent("websocket")) > 0
    await author.session.stop_run(status.run, "seen enough")
    await finished(author, status.run)
