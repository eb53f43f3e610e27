"""The form of training that large models take, in onnxruntime-web."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import plans
from plans import large_models
from tests.plans.against_pytorch import example_data
from tests.plans.test_training_equals_pytorch import FLAT, LABEL, mlp


@pytest.mark.slow
def test_flat_vectors_train_in_the_browsers_runtime_as_here(package, tmp_path, monkeypatch):
    """Three steps of Adam, two of them short: the same to float32's last digits, of numbers near 1."""
    monkeypatch.setattr(large_models, "_LARGE_BYTES", 0)
    plan = plans.trace(
        mlp(), loss="cross_entropy", optimizer=plans.Adam(lr=0.01), inputs=FLAT, targets=LABEL, name="t", version="1",
        check=False,
    )  # fmt: skip
    assert b"Scan" in plan.graph("train")
    state = [plan.initial(role) for role in ("theta", "optimizer_state", "buffers")]
    data = example_data(plan, 12)
    rows = np.array([[0, 1, 2, 3, 4], [5, 6, 7, 8, -1], [9, 10, 11, -1, -1]])
    rates = np.array([0.01, 0.02, 0.01], np.float32)
    here = plans.Executor(plan).call_train(state, data, rows, rates, 5)
    given = [*state, *(data[field.name] for field in plan.manifest.data_fields), rows, rates, np.array(5)]
    ports = plan.manifest.functions["train"]
    feeds = {
        port.name: {"dtype": port.dtype, "shape": value.shape, "values": value.ravel().tolist()}
        for port, value in zip(ports.inputs, given, strict=True)
    }
    (tmp_path / "train.onnx").write_bytes(plan.graph("train"))
    (tmp_path / "inputs.json").write_text(json.dumps(feeds))
    script = Path(__file__).parent / "one_call.mjs"
    done = subprocess.run(
        ["node", script, tmp_path / "train.onnx", tmp_path / "inputs.json", package],
        capture_output=True, text=True, check=True, timeout=150,
    )  # fmt: skip
    there = json.loads(done.stdout)
    assert np.abs(here[0] - state[0]).max() > 0.01
    for port, expected in zip(ports.outputs, here, strict=True):
        assert there[port.name] == pytest.approx(expected.ravel().tolist(), abs=1e-6)
