import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import plans
from cli.main import app
from protocol.identity import Identity
from python_node.state import load_or_create_identity
from tests.cli.process import Signaling


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path, monkeypatch):
    """No test reads or writes this user's keys and state."""
    folder = tmp_path / "data"
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def plan():
    torch.manual_seed(0)
    return plans.trace(
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
        loss="cross_entropy",
        optimizer=plans.SGD(lr=0.1),
        inputs={"x": plans.Field("float32", (6,))},
        targets={"label": plans.Field("int64")},
        metrics=["accuracy"],
        name="small",
        version="1",
        description="A small test plan.",
    )


@pytest.fixture(scope="session")
def author(tmp_path_factory):
    """The path of an author's key, and the identity in it."""
    path = tmp_path_factory.mktemp("author") / "author.key"
    return path, load_or_create_identity(path)


@pytest.fixture(scope="session")
def plan_file(plan, author, tmp_path_factory):
    return plan.sign(author[1]).save(tmp_path_factory.mktemp("plan") / "small.plan")


@pytest.fixture
def stranger():
    return Identity(bytes(range(32)))


@pytest.fixture(scope="session")
def signaling(tmp_path_factory):
    with Signaling(tmp_path_factory.mktemp("signaling")) as process:
        yield process


@pytest.fixture
def peerplan():
    """Run a command line in this process."""

    def run(*words):
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


@pytest.fixture
def refused(peerplan):
    """Run a command line that must fail: gives its error, checked to be one line and the same in JSON."""

    def run(*words, status):
        shown = peerplan(*words)
        assert shown.exit_code == status, (shown.exit_code, shown.output)
        lines = [line for line in shown.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert "Traceback" not in shown.output
        told = peerplan(*words, "--json")
        assert told.exit_code == status
        error = json.loads(told.stdout.splitlines()[-1])["error"]
        assert error["message"]
        return error

    return run


@pytest.fixture
def data_file(tmp_path):
    """Three clusters in six dimensions, as a dataset that fits the plan."""

    def write(seed, examples=90, name="x"):
        generator = np.random.default_rng(seed)
        label = np.arange(examples) % 3
        x = generator.normal(size=(examples, 6)).astype(np.float32)
        x[np.arange(examples), label] += 3
        path = tmp_path / f"data{seed}.npz"
        np.savez(path, **{name: x, "label": label.astype(np.int64)})
        return path

    return write
