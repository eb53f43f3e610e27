import os
import signal
import subprocess
import sys
import tempfile
import threading

import numpy as np
import pytest
import torch
from torch import nn

import plans
from plans import Field, trial
from plans.authoring import selfcheck
from plans.authoring.lowering import registry
from plans.errors import ExecutionError, TraceError
from plans.stored import Stored
from plans.trial import Trial, run_apart, run_here

HELD = """
import json, sys

def hold(_text):
    with open({pipe!r}, "w") as pipe:
        pipe.write("here")
        pipe.flush()
        while True:
            threading.Event().wait()

if "plans.trial" in sys.orig_argv:
    import threading
    json.loads = hold
"""
AUTHOR = """
import sys
from pathlib import Path
import plans
from tests.plans.test_trial import trial_of
from plans.trial import run_apart

plan = plans.load(sys.argv[1])
list(run_apart(plan, trial_of(plan), Path(sys.argv[2])))
"""


def trial_of(plan):
    random = np.random.default_rng(0)
    data = {"x": random.standard_normal((5, 6)).astype(np.float32), "y": random.integers(0, 3, 5)}
    return Trial(data, random.random(plan.manifest.optimizer_count, np.float32) + 0.5, 0.1, 7)


@pytest.fixture(scope="module")
def plan():
    """With everything that has a place of its own: state, buffers, frozen parameters, random numbers, a metric."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    model[0].bias.requires_grad_(False)
    return plans.trace(
        model, loss="cross_entropy", optimizer="adam", inputs={"x": Field("float32", (6,))},
        targets={"y": Field("int64")}, metrics=["accuracy"], name="t", version="1",
    )  # fmt: skip


@pytest.fixture
def held(monkeypatch, tmp_path):
    """The process stops once it has begun, and says so into a pipe that it keeps open until it ends."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(HELD.format(pipe=str(pipe)))
    monkeypatch.syspath_prepend(tmp_path / "path")
    return pipe


@pytest.fixture
def started(monkeypatch):
    """Every process that is started."""
    processes = []

    class Known(subprocess.Popen):
        def __init__(self, *given, **options):
            super().__init__(*given, **options)
            processes.append(self)

    monkeypatch.setattr(trial.subprocess, "Popen", Known)
    return processes


def when_held(pipe, act, *given):
    """Do something once the process has stopped, from another thread."""

    def wait():
        with pipe.open() as words:
            assert words.read(4) == "here"
            act(*given)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def end(started):
    started[0].kill()


@pytest.mark.parametrize("in_a_file", [True, False])
def test_a_process_of_its_own_gives_the_same_bits(plan, tmp_path, in_a_file):
    given = trial_of(plan)
    if in_a_file:
        stored = Stored(tmp_path / "elsewhere", plan.manifest.optimizer_count)
        stored[:] = given.optimizer_state
        given = Trial(given.data, stored, given.learning_rate, given.seed)
    apart = {name: result[:] for name, result in run_apart(plan, given, tmp_path)}
    here = dict(run_here(plan, given))
    assert list(apart) == list(here) == [
        "theta", "optimizer_state", "buffers", "train metrics", "evaluate metrics", "outputs",
    ]  # fmt: skip
    for name, result in here.items():
        assert apart[name].dtype == result.dtype
        assert np.array_equal(apart[name], result)
        assert np.any(result != 0)


def test_that_process_holds_no_pytorch():
    code = "import sys, plans.trial; print([name for name in ('torch', 'sympy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_it_fails_with_the_same_words(plan, tmp_path):
    given = trial_of(plan)
    wrong = Trial(given.data, given.optimizer_state[1:], given.learning_rate, given.seed)
    with pytest.raises(ExecutionError, match="plan t, train: ") as here:
        list(run_here(plan, wrong))
    with pytest.raises(ExecutionError) as apart:
        list(run_apart(plan, wrong, tmp_path))
    assert str(apart.value) == str(here.value)


def test_a_process_that_breaks_is_quoted(plan, tmp_path, monkeypatch):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text("import json\njson.loads = lambda text: 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path / "path")
    with pytest.raises(ExecutionError, match="plan t: the process it ran in ended with code 1: ZeroDivisionError"):
        list(run_apart(plan, trial_of(plan), tmp_path))


def test_a_process_that_does_not_start_is_one_error(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(ExecutionError, match=r"plan t: the process to run it in does not start: .*nothing"):
        list(run_apart(plan, trial_of(plan), tmp_path))


def test_a_process_that_the_system_ends_is_one_error(plan, tmp_path, held, started):
    thread = when_held(held, end, started)
    with pytest.raises(ExecutionError, match=r"t: the process it ran in was ended by SIGKILL, as .* memory runs out"):
        list(run_apart(plan, trial_of(plan), tmp_path))
    thread.join()


def test_ctrl_c_ends_the_process_too(plan, tmp_path, held, started):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread = when_held(held, os.kill, os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            list(run_apart(plan, trial_of(plan), tmp_path))
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert started[0].returncode == -signal.SIGKILL


def test_nothing_is_left_when_the_author_is_gone(plan, tmp_path, held):
    folder = tmp_path / "files"
    folder.mkdir()
    path = os.pathsep.join(sys.path)
    author = subprocess.Popen(
        [sys.executable, "-c", AUTHOR, plan.save(tmp_path / "t.plan"), folder], env=os.environ | {"PYTHONPATH": path}
    )
    with held.open() as pipe:
        assert pipe.read(4) == "here"
        assert (folder / "plan").exists()
        author.kill()
        author.wait()
        assert pipe.read() == ""  # it has ended
    assert not folder.exists()


@pytest.fixture
def files(monkeypatch, tmp_path):
    """Every model counts as large, and this is where its files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(selfcheck, "is_large", lambda _manifest: True)
    return folder


def trace(model=None, **options):
    settings = {"loss": "cross_entropy", "optimizer": "adam", "name": "t", "version": "1"}
    fields = {"inputs": {"x": Field("float32", (6,))}, "targets": {"y": Field("int64")}}
    return plans.trace(model or nn.Sequential(nn.Linear(6, 3), nn.Tanh()), **(settings | fields | options))


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (plans.SGD(lr=0.1), {}),
        (plans.SGD(lr=0.1, momentum=0.9, dampening=0.3), {"proximal": 0.5}),
        (plans.Adam(lr=0.1), {"proximal": 0.5, "clip_norm": 0.1, "clip_value": 0.01}),
        (plans.RMSprop(lr=0.1, momentum=0.5), {"local": ["3.*"]}),
    ],
)
def test_large_models_pass_the_check_and_leave_no_files(files, started, optimizer, options, monkeypatch):
    monkeypatch.setattr("plans.authoring.eager._TILE", 7)  # so that tensors have several, and a last short one
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    assert trace(model, optimizer=optimizer, **options).digest
    assert len(started) == 1
    assert list(files.iterdir()) == []


@pytest.mark.parametrize("wrong", ["tanh", "mul"])
def test_a_wrong_operator_is_found_and_leaves_no_files(files, started, monkeypatch, wrong):
    """In the model, and in the optimizer's own arithmetic."""
    operators = {"tanh": torch.ops.aten.tanh.default, "mul": torch.ops.aten.sqrt.default}
    monkeypatch.setitem(registry.LOWERINGS, operators[wrong], lambda to, value: to.op("Sigmoid", value))
    with pytest.raises(TraceError, match=r"self-check with random data: theta differs from PyTorch by [\d.e-]+ of"):
        trace()
    assert len(started) == 1
    assert list(files.iterdir()) == []


def test_a_process_that_is_ended_fails_the_trace_and_leaves_no_files(files, held, started):
    thread = when_held(held, end, started)
    with pytest.raises(TraceError, match="self-check with random data: plan t: the process it ran in was ended by"):
        trace()
    thread.join()
    assert list(files.iterdir()) == []


def test_a_full_disk_is_one_error(files, monkeypatch):
    def full(*_given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trial.np, "savez", full)
    with pytest.raises(TraceError, match=r"files of a large model's vectors, in .*temporary: .*No space left"):
        trace()
    assert list(files.iterdir()) == []


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_model_that_writes_into_its_weights_is_left_as_it_was(optimizer):
    class Clamped(nn.Linear):
        def forward(self, x):
            with torch.no_grad():
                self.weight.clamp_(-0.1, 0.1)
            return super().forward(x)

    torch.manual_seed(0)
    model = Clamped(6, 3)
    before = model.weight.detach().clone()
    assert before.abs().max() > 0.1
    trace(model, optimizer=optimizer)
    assert torch.equal(model.weight, before)


def test_a_stored_vector_is_read_and_written_in_part(tmp_path):
    stored = Stored(tmp_path / "v", 10)
    assert stored.shape == (10,)
    assert np.array_equal(stored[:], np.zeros(10))
    stored[3:6] = np.arange(3, dtype=np.float32)
    stored[8:20] = np.ones(2, np.float32)
    assert stored[2:7].tolist() == [0, 0, 1, 2, 0]
    assert Stored.found(tmp_path / "v")[7:99].tolist() == [0, 1, 1]
    for values in (np.zeros(4, np.float32), np.zeros(3)):
        with pytest.raises(ValueError, match=r"expected float32\[3\], got float\d\d\[\d\]"):
            stored[3:6] = values
