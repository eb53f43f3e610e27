import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import plans
from plans import Field
from plans.errors import BundleError
from plans.large_models import is_large
from protocol.terms import encode_terms
from tests.e2e.world import terms

PEAK_OF_AN_UPDATE = """
import json, resource, sys
import numpy as np
import plans
from protocol.terms import decode_terms
from python_node.datasets import Dataset
from python_node.membership import initial_model
from python_node.training import LocalTrainer

def status(key, pid):
    return next(int(line.split()[1]) * 1024 for line in open(f"/proc/{pid}/status") if line.startswith(key + ":"))

plan = plans.load(sys.argv[1])
x = np.random.default_rng(0).standard_normal((64, 1000)).astype(np.float32)
dataset = Dataset(name="d", arrays={"x": x, "y": np.zeros(64, np.int64)}, holdout=None)
trainer = LocalTrainer(plan, decode_terms(open(sys.argv[2], "rb").read()), dataset, threads=1, node_seed=bytes(32))
model = initial_model(plan)
del plan
pids = ["self", trainer.process_id]
for pid in pids:
    open(f"/proc/{pid}/clear_refs", "w").write("5")
before = [status("VmRSS", pid) for pid in pids]
update = trainer.update(model, "ab" * 32, cancelled=lambda: False)
peaks = [(status("VmHWM", pid) - start) / model.nbytes for pid, start in zip(pids, before)]
held = [(status("VmRSS", pid) - start) / model.nbytes for pid, start in zip(pids, before)]
print(json.dumps([*peaks, sum(held), float(np.abs(update.values).max())]))
"""


def large_plan(optimizer):
    torch.manual_seed(0)
    return plans.trace(
        nn.Sequential(nn.Linear(1000, 8000), nn.ReLU(), nn.Linear(8000, 10)),
        loss="cross_entropy",
        optimizer=optimizer,
        inputs={"x": Field("float32", (1000,))},
        targets={"y": Field("int64")},
        name="large",
        version="1",
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("optimizer", "most"),
    [(plans.SGD(lr=0.1), 4), (plans.SGD(lr=0.1, momentum=0.9), 7), (plans.Adam(lr=0.01), 10)],
    ids=["sgd", "momentum", "adam"],
)
def test_an_update_of_a_large_model_takes_and_leaves_little_memory(optimizer, most, tmp_path):
    """In models: vectors before and after a step, and some tensors on the way, in the process that trains; the update
    alone in this one, and afterwards.

    One layer is nearly all of this model, so a tensor on the way takes as much as a vector.
    """
    plan = large_plan(optimizer)
    assert is_large(plan.manifest)
    (tmp_path / "terms").write_bytes(encode_terms(terms(plan)))
    done = subprocess.run(
        [sys.executable, "-c", PEAK_OF_AN_UPDATE, plan.save(tmp_path / "large.plan"), tmp_path / "terms"],
        check=True, capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    own, peak, held, moved = np.array(eval(done.stdout))
    assert moved > 0
    assert own < 1.2, (own, peak, held)
    assert peak < most, (own, peak, held)
    assert held < 2


def test_a_plan_without_its_start_still_trains_and_says_what_is_gone(plan):
    kept = plan.without_start()
    assert (kept.digest, kept.manifest) == (plan.digest, plan.manifest)
    assert (
        sum(map(len, kept.blobs.values())) == sum(map(len, plan.blobs.values())) - 4 * plan.manifest.parameter_count
    )
    with pytest.raises(BundleError, match="its initial theta was let go of in this program"):
        kept.initial("theta")
    data = {"x": np.ones((8, 6), np.float32), "y": np.zeros(8, np.int64)}
    start = [plan.initial(role) for role in ("theta", "optimizer_state", "buffers")]
    settings = {"batch_size": 4, "epochs": 1, "learning_rate": 0.1, "seed": b"s"}
    lean = plans.Executor(kept, keep_memory=False).train(*start, data, **settings)
    full = plans.Executor(plan).train(*start, data, **settings)
    assert np.array_equal(lean.theta, full.theta)


@pytest.fixture
def plan():
    torch.manual_seed(0)
    return plans.trace(
        nn.Linear(6, 3), loss="cross_entropy", optimizer="sgd", inputs={"x": Field("float32", (6,))},
        targets={"y": Field("int64")}, name="small", version="1",
    )  # fmt: skip


def test_small_models_are_not_large(plan):
    assert not is_large(plan.manifest)
