"""A person at /join, in headless Chromium, beside Python nodes: from a file to a model, or to a refusal."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

import plans
from examples.digits import build_plan
from protocol.terms import Deadlines
from python_node.datasets import Dataset
from python_node.mesh import MeshConfig
from tests.e2e.data import examples
from tests.e2e.world import World, finished, models
from tests.js.tab import Tab

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/usr/bin/chromium").exists() and not os.environ.get("CI"),
        reason="needs /usr/bin/chromium (as root, `make js` installs it)",
    ),
]

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots" / "join"
STAGES = ("link", "train", "advertise", "share", "commit", "consistency", "unmask", "sum")
CONNECT = "Connect and look for runs"
# a tab that is photographed is silent for seconds: nobody gives it up, and no round goes on without it
PATIENT = MeshConfig(ping_after_s=5, dead_after_s=60)
DEADLINES = Deadlines(**{f"{stage}_ms": 30_000 for stage in STAGES})
HOSTILE = """<img src=x onerror="document.title='run'"><script>document.title = "run"</script>"""
LEFT_BEHIND = """async () => {
  const open = indexedDB.open("peerplan");
  await new Promise((resolve) => (open.onsuccess = resolve));
  const left = { local: localStorage.length };
  for (const store of open.result.objectStoreNames) {
    const counted = open.result.transaction(store).objectStore(store).count();
    await new Promise((resolve) => (counted.onsuccess = resolve));
    left[store] = counted.result;
  }
  open.result.close();
  return left;
}"""


@pytest.fixture
async def world(tmp_path, join_page):
    async with World(tmp_path, page=join_page, mesh=PATIENT) as made:
        yield made


@pytest.fixture
async def tab():
    tab = Tab()
    yield tab
    await tab.close()


def page_of(world):
    return world.server.join_url


def shards(count):
    """Real digits, scaled to 0..1, one part for each owner."""
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return [
        {"image": (pixels[part] / 16).astype("float32"), "label": labels[part].astype("int64")}
        for part in np.array_split(order, count)
    ]


async def connected(tab, world, path, *, least=3, **options):
    """Open the page, pick a file, and connect as an owner does."""
    await tab.open(**options)
    assert await tab.do("goto", url=page_of(world)) == 200
    await tab.do("pick", button="Choose a file", paths=[str(path)])
    await tab.do("fill", label="Smallest group for a sum", value=str(least))
    await tab.do("click", role="button", called=CONNECT)
    await tab.do("until", selector="#state[data-state=on]")


async def test_a_person_trains_with_python_nodes_sees_curves_and_draws_a_digit(world, tab, tmp_path):
    own, *others = shards(4)
    np.savez(tmp_path / "shard.npz", **own)
    hosts = [
        await world.node(f"node-{i}", datasets=[Dataset(name="digits", arrays=part)]) for i, part in enumerate(others)
    ]
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    await tab.open()
    await tab.do("goto", url=page_of(world))
    await tab.do("pick", button="Choose a file", paths=[str(tmp_path / "shard.npz")])
    await tab.do("until", selector=".seen table")
    assert await tab.do("texts", selector=".seen tbody tr") == ["image\tfloat32[64]", "label\tint64, one number"]
    assert await tab.do("screenshots", folder=str(SCREENSHOTS), state="start") == [0, 0]
    assert await tab.do("accessibility") == []
    await tab.do("fill", label="Smallest group for a sum", value="3")
    await tab.do("click", role="button", called=CONNECT)
    await tab.do("until", selector="#state[data-state=on]")

    author = await world.author()
    status = await world.publish(
        author,
        build_plan(),
        rounds=10,
        cohort_size=4,
        min_cohort=4,
        epochs=5,
        max_examples=450,
        learning_rate=0.1,
        deadlines=DEADLINES,
    )
    await tab.do("until", selector=".card")
    card = await tab.do("text", selector=".card")
    for expected in (
        "Author new to this device",
        " ".join(world.author_identity.peer_id[i : i + 4] for i in range(0, 32, 4)),
        "image float32[64]",
        "a masked update of 2,410 numbers per round",
        "3 or more",
        "±0.5",
        "none yet",
    ):
        assert expected in card
    assert await tab.do("screenshots", folder=str(SCREENSHOTS), state="offer") == [0, 0]
    assert await tab.do("accessibility") == []
    await tab.do("click", role="button", called="Accept and train")
    await tab.do("until", selector=".run[data-done]:not([data-done='1'])")
    assert await tab.do("screenshots", folder=str(SCREENSHOTS), state="training") == [0, 0]
    assert (await finished(author, status.run, within_s=180)).state == "finished"
    await tab.do("until", selector=".run[data-state=over][data-done='10']")
    assert (
        await tab.do("text", selector=".run .standing") == "The run is finished. The model stays here for you to try."
    )

    await tab.do("click", selector=".run summary")
    rounds = await tab.do("texts", selector=".run details tbody th")
    assert rounds == [str(number) for number in range(10, 0, -1)]
    await tab.do("click", selector=".run summary")
    for chart in ("loss", "accuracy"):
        points = await tab.do("attribute", selector=f"figure:has-text('{chart}') .curve", attribute="data-points")
        assert int(points) == len(rounds)

    angles = np.linspace(0, 2 * np.pi, 40)
    circle = [[0.5 + 0.21 * float(np.cos(a)), 0.5 + 0.33 * float(np.sin(a))] for a in angles]
    await tab.do("draw", strokes=[circle])
    await tab.do("until", selector=".bars")
    parts = [float(text.removesuffix(" %")) for text in await tab.do("texts", selector=".bars .part")]
    assert len(parts) == 10
    assert sum(parts) == pytest.approx(100, abs=0.6)
    assert await tab.do("text", selector=".result .best") == "0"
    assert await tab.do("screenshots", folder=str(SCREENSHOTS), state="predict") == [0, 0]
    assert await tab.do("accessibility") == []

    origin = urlsplit(page_of(world)).netloc
    asked = [urlsplit(url) for url in await tab.do("requests")]
    assert {url.netloc for url in asked if url.scheme != "data"} == {origin}
    assert any(url.path == "/join/runtime.0" for url in asked)
    assert any(url.scheme == "ws" for url in asked)
    assert tab.of("pageerror") == []
    assert tab.of("console") == []
    held = await tab.do("attribute", selector=".model", attribute="title")
    assert {model[1] for model in await models(hosts, status.run, 10)} == {held}


async def test_a_part_of_the_model_that_stays_is_told_on_the_card_and_used_for_answers(world, tab, tmp_path):
    np.savez(tmp_path / "shard.npz", **examples(5))
    await world.nodes(2)
    await connected(tab, world, tmp_path / "shard.npz")
    author = await world.author()
    status = await world.publish(author, build_plan(local=["2.*"]), rounds=1000, cohort_size=3)
    await tab.do("until", selector=".card")
    card = await tab.do("text", selector=".card")
    assert "a masked update of 2,080 numbers per round" in card
    assert (
        "2,080 numbers are trained in common. 330 more are yours alone: trained and kept here, sent to nobody."
        in card
    )
    assert await tab.do("accessibility") == []
    await tab.do("click", role="button", called="Accept and train")
    await tab.do("until", selector=".run[data-done]")
    assert await tab.do("accessibility") == []
    await tab.do("draw", strokes=[[[0.5, 0.1], [0.5, 0.9]]])
    await tab.do("until", selector=".bars")
    assert len(await tab.do("texts", selector=".bars .part")) == 10
    assert "with the part that is yours alone" in await tab.do("text", selector=".try")
    await author.session.stop_run(status.run, "seen enough")
    await finished(author, status.run)
    assert tab.of("pageerror") == []


async def test_refusing_by_keyboard_leaves_nothing_behind(world, tab, tmp_path):
    np.savez(tmp_path / "shard.npz", **examples(5))
    await world.nodes(3)
    await connected(tab, world, tmp_path / "shard.npz")
    author = await world.author()
    torch = pytest.importorskip("torch")
    plan = plans.trace(
        torch.nn.Linear(64, 10),
        loss="cross_entropy",
        optimizer=plans.SGD(lr=0.1),
        inputs={"image": plans.Field("float32", (64,))},
        targets={"label": plans.Field("int64")},
        metrics=["accuracy"],
        batch_size=16,
        name="digits",
        version="1",
        description=HOSTILE,
    )
    status = await world.publish(author, plan, rounds=2)
    await tab.do("until", selector=".card")
    assert await tab.do("text", selector=".card .lead") == HOSTILE
    assert "Runs that ask for you" in await tab.do("focused")
    for _ in range(2):
        await tab.do("press", key="Tab")
    assert await tab.do("focused") == "Refuse"
    await tab.do("press", key="Enter")
    await tab.do("until", selector="#offers .waiting")
    assert (await finished(author, status.run)).state == "finished"
    left = await tab.do("evaluate", script=f"({LEFT_BEHIND})()")
    assert left.pop("identity") == 1
    assert left.pop("receipts") == 1  # of the refusal, for its owner alone
    assert set(left.values()) == {0}, left
    assert not any("/join/runtime" in url for url in await tab.do("requests"))


async def test_a_run_over_fewer_peers_than_the_owner_asks_for_is_refused_with_the_reason(world, tab, tmp_path):
    np.savez(tmp_path / "shard.npz", **examples(5))
    await connected(tab, world, tmp_path / "shard.npz", least=5)
    author = await world.author()
    await world.publish(author, build_plan(), rounds=2)
    await tab.do("until", selector=".card .notice")
    assert "a cohort of 3; policy asks for at least 5" in await tab.do("text", selector=".card .notice")
    assert await tab.do("texts", role="button", called="Accept and train") == []


async def test_a_table_is_trained_on_and_the_form_predicts_what_the_model_says(world, tab, tmp_path):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(3)
    features = random.normal(size=(60, 3)).astype("float32")
    price = (features @ np.array([0.5, -1.0, 2.0]) + 0.25).astype("float32")
    rows = [
        "rooms,age,id,size,price",
        *(f"{a},{b},{i},{c},{p}" for i, ((a, b, c), p) in enumerate(zip(features, price, strict=True))),
    ]
    (tmp_path / "houses.csv").write_text("\n".join(rows), encoding="utf-8")
    torch.manual_seed(0)
    plan = plans.trace(
        torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Flatten(0)),
        loss="mse",
        optimizer=plans.SGD(lr=0.1),
        inputs={"features": plans.Field("float32", (3,))},
        targets={"price": plans.Field("float32")},
        batch_size=16,
        name="houses",
        version="1",
    )
    arrays = {"features": features, "price": price}
    hosts = [await world.node(f"node-{i}", datasets=[Dataset(name="houses", arrays=arrays)]) for i in range(2)]
    await tab.open()
    await tab.do("goto", url=page_of(world))
    await tab.do("pick", button="Choose a file", paths=[str(tmp_path / "houses.csv")])
    await tab.do("until", role="button", called=CONNECT)
    await tab.do("fill", label="Columns to leave out", value="id")
    await tab.do("press", key="Tab")
    await tab.do("until", selector=".seen tr:has-text('float32[3]')")
    await tab.do("fill", label="Smallest group for a sum", value="3")
    await tab.do("click", role="button", called=CONNECT)
    await tab.do("until", selector="#state[data-state=on]")
    author = await world.author()
    status = await world.publish(author, plan, rounds=2, cohort_size=3, min_cohort=3, max_examples=64)
    await tab.do("until", selector=".card")
    await tab.do("click", role="button", called="Accept and train")
    await tab.do("until", selector=".run[data-done='2']")
    await finished(author, status.run)
    values = np.array([0.5, -1.25, 2.0], dtype="float32")
    await tab.do("fill", label="features", value="0.5, -1.25")
    await tab.do("click", role="button", called="Predict")
    await tab.do("until", selector=".answer:has-text('features: expected 3 numbers, got 2')")
    await tab.do("fill", label="features", value="0.5, -1.25, 2")
    await tab.do("click", role="button", called="Predict")
    await tab.do("until", selector=".answer .result strong")
    (held,) = await models(hosts, status.run, 2)
    theta = np.frombuffer(held[2], dtype="<f4")
    expected = float(theta[:3] @ values + theta[3])  # weight, then bias: checked by the plan's parameter order
    assert [parameter.name for parameter in plan.manifest.parameters] == ["0.weight", "0.bias"]
    shown = float((await tab.do("text", selector=".answer .result strong")).replace(",", ""))
    assert shown == pytest.approx(expected, rel=6e-4)  # four digits are shown
    await tab.do("click", role="button", called="Use one of mine")
    await tab.do("until", selector=".answer:has-text('Its price in your data')")

    again = await world.publish(author, plan, rounds=100, cohort_size=3, min_cohort=3, max_examples=64)
    assert "Author known to this device" in await tab.do("text", selector=".card")
    await tab.do("click", role="button", called="Accept and train")
    await tab.do("until", selector=".run[data-done]:not([data-state])")
    await tab.do("click", role="button", called="Stop taking part")
    await tab.do("until", selector=".run .standing:has-text('You have left this run')")
    assert (await author.session.get_run(again.run)).status.state == "waiting"  # for a third peer
    await tab.do("click", role="button", called="Disconnect")
    await tab.do("until", role="button", called="Choose a file")
    assert tab.of("pageerror") == []


async def test_a_dropped_file_is_read_and_a_second_tab_of_the_browser_is_sent_back(world, tab):
    await tab.open()
    await tab.do("goto", url=page_of(world))
    await tab.do("until", selector="#drop")
    await tab.do("drop", selector="#drop", files=[["ages.csv", "age,dose\n30,1\n40,2\n50,3\n"]])
    await tab.do("until", selector=".seen table")
    rows = await tab.do("texts", selector=".seen tbody tr")
    assert rows == ["features\tfloat32[1]", "dose\tint64, one number"]
    told = await tab.do("elsewhere", url=page_of(world))
    assert "another" in told
    assert "close it and load this page again" in told


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("broken.npz", b"not an archive at all, by far", "broken.npz: is no .npz file"),
        ("broken.csv", b"a,b\n1,many\n", 'broken.csv: row 2, column "b": expected a finite number, got "many"'),
        ("notes.txt", b"hello", "notes.txt: expected one .csv file, one .npz file, or pictures alone"),
    ],
)
async def test_a_file_that_cannot_be_used_is_told_and_nothing_is_sent(world, tab, tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    await tab.open()
    await tab.do("goto", url=page_of(world))
    await tab.do("pick", button="Choose a file", paths=[str(tmp_path / name)])
    await tab.do("until", selector="#problems [data-code=unusable-data]")
    told = await tab.do("text", selector="#problems")
    assert message in told
    assert "nothing was sent" in told
    assert not any(url.startswith("ws") for url in await tab.do("requests"))


LACKING = {
    "WebRTC": ("delete globalThis.RTCPeerConnection", "This browser has no WebRTC", "use another browser"),
    "SIMD": ("WebAssembly.validate = () => false", "no WebAssembly with SIMD", "lockdown"),
    "storage": (
        "IDBFactory.prototype.open = () => { throw new DOMException('denied', 'SecurityError') }",
        "This browser denies storage",
        "private window",
    ),
    "signatures": (
        "SubtleCrypto.prototype.generateKey = () => Promise.reject(new DOMException('no', 'NotSupportedError'))",
        "no Ed25519 signatures",
        "Update it",
    ),
}


@pytest.mark.parametrize("lack", LACKING)
async def test_a_browser_that_cannot_take_part_is_told_why_and_what_to_do(world, tab, lack):
    before, what, then = LACKING[lack]
    await tab.open(before=before)
    await tab.do("goto", url=page_of(world))
    await tab.do("until", selector="#problems .notice")
    told = await tab.do("text", selector="#problems")
    assert what in told
    assert then in told
    assert await tab.do("text", selector="#state") == "This browser cannot take part"
    await tab.do("until", selector="#data", state="hidden")


async def test_a_signaling_server_that_goes_away_and_comes_back_is_joined_again(world, tab, tmp_path):
    np.savez(tmp_path / "shard.npz", **examples(5))
    await connected(tab, world, tmp_path / "shard.npz")
    await world.stop_signaling()
    await tab.do("until", selector="#problems [data-code=signaling-down]")
    assert "dials again by itself" in await tab.do("text", selector="#problems")
    await world.start_signaling()
    await world.nodes(2)
    author = await world.author()
    await world.publish(author, build_plan(), rounds=1)
    await tab.do("click", role="button", called="Accept and train")
    await tab.do("until", selector=".run[data-done='1']")
    await tab.do("until", selector="#problems [data-code=signaling-down]", state="detached")


async def test_a_part_of_the_runtime_that_breaks_off_is_fetched_again(world, tab, tmp_path):
    np.savez(tmp_path / "shard.npz", **examples(5))
    await connected(tab, world, tmp_path / "shard.npz", instead=[("/runtime.2", "break")])
    await world.nodes(2)
    author = await world.author()
    await world.publish(author, build_plan(), rounds=1, deadlines=DEADLINES)
    await tab.do("click", role="button", called="Accept and train")
    await tab.do("until", selector=".run[data-done='1']")
    assert len(tab.of("instead", ending="/runtime.2")) == 1


async def test_a_runtime_that_does_not_load_is_told_and_the_others_go_on(world, tab, tmp_path):
    np.savez(tmp_path / "shard.npz", **examples(5))
    await connected(tab, world, tmp_path / "shard.npz", instead=[("/runtime.1", 503)])
    hosts = await world.nodes(2)  # too few without the tab: the round is not over before a person has accepted
    author = await world.author()
    status = await world.publish(author, build_plan(), rounds=1, retries=100)
    await tab.do("click", role="button", called="Accept and train")
    await tab.do("until", selector="#problems .notice")
    told = await tab.do("text", selector="#problems")
    assert "ONNX Runtime did not load" in told
    assert "/join/runtime.1: the server answered 503" in told
    hosts += await world.nodes(1, first=2)
    assert (await finished(author, status.run, within_s=180)).state == "finished"
    assert len(await models(hosts, status.run, 1)) == 1


async def test_a_server_that_breaks_the_protocol_is_left_and_the_picked_file_stays(world, tab, tmp_path):
    np.savez(tmp_path / "shard.npz", **examples(5))
    await connected(tab, world, tmp_path / "shard.npz", between=True)
    await tab.do("forge", text='{"type": "offer"}')
    await tab.do("until", selector="#problems [data-code=signaling-untrusted]")
    assert "Do not go on" in await tab.do("text", selector="#problems")
    await tab.do("until", selector="#state[data-state=off]")
    await tab.do("until", selector="#offers", state="hidden")
    await tab.do("click", role="button", called=CONNECT)
    await tab.do("until", selector="#state[data-state=on]")


async def test_a_forgotten_device_gets_another_identity(world, tab):
    await tab.open()
    await tab.do("goto", url=page_of(world))
    await tab.do("until", selector="#fingerprint")
    first = await tab.do("text", selector="#fingerprint")
    await tab.do("goto", url=page_of(world))
    await tab.do("until", selector="#fingerprint")
    assert await tab.do("text", selector="#fingerprint") == first
    await tab.do("click", role="button", called="Forget this device")
    await tab.do("click", role="button", called="Forget now")
    await tab.do("until", selector=f"#fingerprint:not(:has-text('{first}'))")
