"""Python in README.md and docs/plans.md runs as it is written."""

import re
from pathlib import Path

import numpy as np
import pytest

import plans
from python_node.author import make_terms

ROOT = Path(__file__).parents[2]
COUNT = 64


def snippets(document):
    return re.findall(
        r"^```python\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_the_readme_makes_shards_and_publishes_a_plan_that_reads_them(tmp_path, monkeypatch):
    asked = {}

    def publish(plan, url, **options):
        asked.update(options)
        make_terms(plan, **options)
        return url

    monkeypatch.setattr(plans.Plan, "publish", publish)
    names = {}
    for code in snippets("README.md"):
        exec(code, names)
    shards = [np.load(tmp_path / f"shard{number}.npz") for number in range(5)]
    for field in names["plan"].manifest.data_fields:
        for shard in shards:
            assert shard[field.name].dtype.name == field.dtype
            assert shard[field.name].shape[1:] == tuple(field.shape)
    assert all(abs(len(shard["label"]) - asked["max_examples"]) <= 1 for shard in shards)


def test_the_page_for_authors_traces_signs_verifies_trains_and_predicts():
    images = np.random.default_rng(0).random((COUNT, 64), dtype=np.float32)
    labels = np.arange(COUNT) % 10
    data = {"image": images, "label": labels}
    names = {"images": images, "labels": labels, "held_out": data, "seed_bytes": bytes(32)}
    first, second, third, *_ = snippets("docs/plans.md")
    for code in (first, second):
        exec(code, names)
    # the executor trained: what it ends with fits what it was given better than what it began with
    executor, plan = names["executor"], names["plan"]
    before = executor.evaluate(plan.initial("theta"), plan.initial("buffers"), data).mean("loss")
    assert executor.evaluate(names["result"].theta, names["result"].buffers, data).mean("loss") < before
    exec(third, names)
    assert_means_are_exact_and_nothing_is_learned(names["statistics"])


def assert_means_are_exact_and_nothing_is_learned(statistics):
    rows = np.random.default_rng(1).uniform(0, 90, (COUNT, 4)).astype(np.float32)
    rows[:, 3] = np.arange(COUNT) % 2
    executor = plans.Executor(statistics, threads=1)
    result = executor.train(
        statistics.initial("theta"), statistics.initial("optimizer_state"), statistics.initial("buffers"),
        {"features": rows, "risk": np.zeros(COUNT, np.int64)},
        batch_size=16, epochs=1, learning_rate=0.1, seed=bytes(32),
    )  # fmt: skip
    assert result.theta.tolist() == [0.0]
    age = rows[:, 0].astype(np.float64)
    # sums of float32 terms in float32: a few parts in a million
    assert result.metrics.mean("age") == pytest.approx(age.mean(), rel=1e-5)
    assert result.metrics.mean("age_squared") == pytest.approx((age**2).mean(), rel=1e-5)
    assert result.metrics.mean("smokers") == pytest.approx(0.5, rel=1e-5)
