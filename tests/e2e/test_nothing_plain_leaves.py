"""Every byte that leaves a node in a round, searched for the update in each form it ever has before it is masked.

The plan here has no ReLU on purpose. A unit that is dead on all peers but one makes their sum, which is released,
equal to that one's update in the unit's coordinates: true of any sum and no leak of masking, but a search finds it.
"""

import base64

import pytest
import torch
from torch import nn

import plans
from protocol.link import MessageKind
from tests.e2e.wiretap import Haystack, Needles, Wiretap
from tests.e2e.world import finished, whole_log
from tests.secagg.ring import packed


@pytest.fixture(scope="module")
def dense_plan():
    """A plan whose updates have no zeros."""
    torch.manual_seed(3)
    return plans.trace(
        nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 10)),
        loss="cross_entropy",
        optimizer=plans.SGD(lr=0.5),
        inputs={"image": plans.Field("float32", (64,))},
        targets={"label": plans.Field("int64")},
        batch_size=16,
        name="dense",
        version="1",
    )


@pytest.fixture
async def tapped(world, dense_plan, monkeypatch):
    """A finished run of two rounds among four peers, and all that they sent."""
    plan = dense_plan
    tap = Wiretap(monkeypatch)
    hosts = await world.nodes(4)
    author = await world.author()
    run = (await world.publish(author, plan, rounds=2, cohort_size=4, min_cohort=4)).run
    await finished(author, run)
    for host in hosts:
        await host.diary.until("round_completed", round=2)
    assert [len(entry.survivors) for entry in await whole_log(author, run)] == [4, 4]
    assert len(tap.plain) == len(tap.updates) == len(tap.masked) == 8
    return tap, hosts


def forms_of_updates(tap: Wiretap) -> dict[str, list[bytes]]:
    """Each form in which an update exists on a device, of every peer and round."""
    forms: dict[str, list[bytes]] = {
        "float32": [update.astype("<f4").tobytes() for update in tap.updates],
        "float32, big endian": [update.astype(">f4").tobytes() for update in tap.updates],
        "float64": [update.astype("<f8").tobytes() for update in tap.updates],
        "float16": [update.astype("<f2").tobytes() for update in tap.updates],
        "ring values": [words.astype("<u4").tobytes() for words in tap.plain],
    }
    for bits in (16, 20, 24):
        forms[f"packed {bits}"] = [packed(words, bits) for words in tap.plain]
    in_text = {}
    for name in ("float32", "ring values", "packed 20"):
        in_text[f"{name}, hex"] = [text.hex().encode() for text in forms[name]]
        for phase in range(3):
            in_text[f"{name}, base64 from byte {phase}"] = [base64.b64encode(text[phase:]) for text in forms[name]]
    return forms | in_text


async def test_no_window_of_a_plain_update_leaves_a_node_in_any_form(tapped):
    tap, _ = tapped
    everything = tap.everything

    for form, texts in forms_of_updates(tap).items():
        needles = Needles(texts)
        assert needles.kept > 0.2 * needles.total, f"{form}: too few telling windows for a search to mean anything"
        assert needles.found_in(everything) == 0, form


async def test_the_taps_see_the_masked_update_on_its_way(tapped):
    """Positive control: what does leave is found, on the channel and below it."""
    tap, _ = tapped
    needles = Needles(tap.masked)

    # a peer keeps the one chunk of four that it owns
    assert needles.found_in(Haystack(tap.channel)) > 0.7 * needles.total
    assert needles.found_in(Haystack(tap.sctp)) > 0.7 * needles.total
    assert needles.found_in(Haystack(tap.websocket)) == 0  # masked or not, no update goes by way of signaling


async def test_the_taps_would_see_a_plain_update_that_was_sent(tapped):
    """Positive control: a node that leaks is caught, by channel and by websocket."""
    tap, hosts = tapped
    leak = tap.updates[0].astype("<f4").tobytes()
    needles = Needles([leak])
    assert needles.found_in(tap.everything) == 0

    sender, receiver = hosts[0], hosts[1]
    sender.mesh.send(receiver.peer, MessageKind.MODEL, leak)
    await sender.mesh.drain(receiver.peer)
    assert needles.found_in(Haystack(tap.channel)) >= needles.kept
    assert needles.found_in(Haystack(tap.sctp)) > 0.5 * needles.kept

    sender.session.relay(receiver.peer, "0" * 64, "offer", leak)
    assert Needles([base64.b64encode(leak)]).found_in(Haystack(tap.websocket)) > 0


async def test_removing_the_masks_is_noticed(world, plan, monkeypatch):
    """The guard itself: with masks of zeros the very same search finds the updates."""
    monkeypatch.setattr("protocol.secagg.masking._Masks.add_to", lambda _self, _part: None)
    tap = Wiretap(monkeypatch)
    await world.nodes(3)
    author = await world.author()
    run = (await world.publish(author, plan, rounds=1, cohort_size=3)).run
    await finished(author, run)

    needles = Needles([packed(words, 20) for words in tap.plain])

    assert needles.found_in(Haystack(tap.channel)) > 0.5 * needles.kept


async def test_signaling_stores_nothing_of_an_update(tapped, world):
    tap, _ = tapped
    await world.stop_signaling()
    files = [path.read_bytes() for path in world.config.folder.rglob("*") if path.is_file()]
    assert files
    stored = Haystack(files)

    for form, texts in forms_of_updates(tap).items():
        assert Needles(texts).found_in(stored) == 0, form
    assert Needles(tap.masked).found_in(stored) == 0
