import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import plans
from plans import Field
from plans.authoring import selfcheck
from plans.authoring.lowering import registry
from plans.errors import TraceError
from plans.large_models import is_large

PEAK_OF_A_TRACE = """
import json, sys
from benchmarks.resident import Checking, baseline_of, memory
from tests.plans.test_large_models import trace_mlp

trace_mlp(8, sys.argv[1])
before = memory("self", "VmRSS")
open("/proc/self/clear_refs", "w").write("5")
with Checking() as checking:
    size = 4 * trace_mlp(1100, sys.argv[1]).manifest.parameter_count
check = checking.peak - baseline_of("plans.trial")
print(json.dumps([(memory("self") - before) / size, (memory("self", "VmRSS") - before) / size, check / size]))
"""


def trace_mlp(width, optimizer="sgd"):
    torch.manual_seed(0)
    between = [layer for _ in range(7) for layer in (nn.Linear(width, width), nn.Tanh())]
    return plans.trace(
        nn.Sequential(nn.Linear(100, width), nn.Tanh(), *between, nn.Linear(width, 10)),
        loss="cross_entropy", optimizer=optimizer, inputs={"x": Field("float32", (100,))},
        targets={"y": Field("int64")}, name="mlp", version="1",
    )  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("optimizer", "most_to_check"), [("sgd", 4), ("adam", 8)])
def test_tracing_and_checking_a_large_model_takes_and_leaves_little_memory(optimizer, most_to_check):
    """In models: the author's own and the plan's, and gradients, with any optimizer; then nothing.

    The process that runs the plan holds each vector as given and as a result, and twice what leaves the step last.
    """
    done = subprocess.run(
        [sys.executable, "-c", PEAK_OF_A_TRACE, optimizer], check=True, capture_output=True, text=True, timeout=300
    )
    peak, held, check = json.loads(done.stdout)
    assert 2 < peak < 4.3, (peak, held, check)
    assert held < 1, (peak, held, check)
    assert 1 < check < most_to_check, (peak, held, check)  # looked at while it runs, so the last of it may be missed


def test_a_large_plan_that_computes_something_else_is_refused(monkeypatch):
    wrong = lambda to, value: to.op("Sigmoid", value)  # noqa: E731
    monkeypatch.setitem(registry.LOWERINGS, torch.ops.aten.tanh.default, wrong)
    with pytest.raises(TraceError, match=r"self-check with random data: theta differs from PyTorch by [\d.e-]+ of"):
        trace_mlp(1100)


def test_one_wrong_number_among_millions_is_found_and_measured():
    want = np.random.default_rng(0).standard_normal(selfcheck._TILE * 2 + 7).astype(np.float32)
    found = want.copy()
    assert selfcheck._norms(found, want) == (0.0, pytest.approx(np.linalg.norm(want.astype(np.float64)), rel=1e-12))
    for at in (0, selfcheck._TILE, len(want) - 1):
        found = want.copy()
        found[at] += 100
        assert selfcheck._norms(found, want)[0] == pytest.approx(100, rel=1e-6)
        with pytest.raises(TraceError, match="t: theta differs from PyTorch by 100 of"):
            selfcheck._compare("t", "theta", found, want)


def test_small_models_are_checked_in_memory():
    assert not is_large(trace_mlp(8).manifest)


@pytest.mark.parametrize("fixed_first", [True, False])
def test_a_matrix_that_meets_many_is_not_copied_for_each(fixed_first):
    """PyTorch repeats a layer's weights for each leading index where it cannot fold; ONNX's product needs no copy."""

    class Across(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(6, 3, bias=False)

        def forward(self, x):  # [batch, 6, 4]
            if fixed_first:
                return self.mix(x.permute(2, 0, 1)).permute(1, 0, 2)
            return self.mix(x.transpose(1, 2))

    torch.manual_seed(0)
    plan = plans.trace(
        Across(), loss="mse", optimizer="sgd", inputs={"x": Field("float32", (6, 4))},
        targets={"y": Field("float32", (4, 3))}, name="across", version="1",
    )  # fmt: skip
    graph = onnx.load_from_string(plan.graph("predict")).graph
    weights = {name for node in graph.node if node.op_type == "Split" for name in node.output} | {"theta"}
    for node in graph.node:
        if weights.intersection(node.input):
            weights.update(node.output) if node.op_type in ("Reshape", "Transpose") else None
            assert node.op_type != "Expand", [n.op_type for n in graph.node]
