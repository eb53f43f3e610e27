"""Graphs that a Python node refuses, a JavaScript node refuses too; both predict the same."""

import json
import random
import subprocess

import numpy as np
import onnx
import pytest

from plans import Executor
from protocol.manifest import encode_manifest
from tests.js.process import SCRIPTS
from tests.plans.conftest import _without_torch_traces as _quiet
from tests.plans.conftest import plan as _plan
from tests.plans.test_validate import ATTACKS, KINDS, body_of, model_of

plan, quiet = _plan, _quiet
BY_THE_RUNTIME = {"undefined_value", "value_made_twice"}
"""What Python's checker finds, and ONNX Runtime itself when it loads the graph."""


def judge(package, plan, cases):
    manifest = encode_manifest(plan.manifest).decode()
    lines = [json.dumps({"manifest": manifest, **case}) for case in cases]
    done = subprocess.run(
        ["node", str(SCRIPTS / "graphs.mjs")],
        cwd=package,
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def feeds_for(plan):
    generator = np.random.default_rng(0)
    theta = generator.normal(size=plan.manifest.parameter_count).astype(np.float32)
    x = generator.normal(size=(5, 6)).astype(np.float32)
    buffers = np.zeros(plan.manifest.buffer_count, np.float32)
    arrays = {"theta": theta, "buffers": buffers, "x": x}
    return arrays, {name: {"shape": a.shape, "values": a.ravel().tolist()} for name, a in arrays.items()}


def test_traced_functions_pass_and_predict_like_python(package, plan):
    arrays, feeds = feeds_for(plan)
    cases = [{"kind": kind, "graph": plan.graph(kind).hex()} for kind in KINDS]
    *passed, predicted = judge(
        package, plan, [*cases, {"kind": "predict", "graph": plan.graph("predict").hex(), "feeds": feeds}]
    )
    assert passed == [{"refused": None}] * len(KINDS)
    expected = Executor(plan).predict(arrays["theta"], arrays["buffers"], {"x": arrays["x"]})
    assert np.allclose(np.reshape(predicted["output"], expected.shape), expected, rtol=1e-5, atol=1e-6)


def test_every_attack_on_a_graph_is_refused_by_name(package, plan):
    _, feeds = feeds_for(plan)
    cases = []
    for attack in ATTACKS:
        model = model_of(plan)
        attack(model)
        cases.append({"kind": "predict", "graph": model.SerializeToString().hex(), "feeds": feeds})
    verdicts = judge(package, plan, cases)
    for attack, verdict in zip(ATTACKS, verdicts, strict=True):
        assert verdict["refused"], attack.__name__
        expected = "runtime" if attack.__name__ in BY_THE_RUNTIME else "rules"
        assert verdict["by"] == expected, (attack.__name__, verdict)


@pytest.mark.parametrize("field", ["operator", "file"])
def test_an_attack_inside_a_loop_is_refused(package, plan, field):
    model = model_of(plan, "train")
    if field == "operator":
        body_of(model).node[0].op_type = "SequenceEmpty"
    else:
        body_of(model).initializer[0].data_location = onnx.TensorProto.EXTERNAL
    (verdict,) = judge(package, plan, [{"kind": "train", "graph": model.SerializeToString().hex()}])
    assert verdict["by"] == "rules"


def test_mutated_bytes_are_run_or_refused_by_name(package, plan):
    draw = random.Random(7)
    cases = []
    for kind in KINDS:
        for _ in range(100):
            data = bytearray(plan.graph(kind))
            for _ in range(draw.randint(1, 6)):
                data[draw.randrange(len(data))] ^= draw.randint(1, 255)
            cases.append({"kind": kind, "graph": data.hex()})
        cases.append({"kind": kind, "graph": draw.randbytes(300).hex()})
    verdicts = judge(package, plan, cases)
    assert len(verdicts) == len(cases)
    assert sum(verdict["refused"] is not None for verdict in verdicts) > 100
