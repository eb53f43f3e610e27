"""The form that training of a large model takes, on small ones, against PyTorch and against the usual form."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import plans
from plans import Adam, Field, large_models
from plans.authoring.lowering import GraphBuilder, port
from tests.plans.against_pytorch import example_data, train_both
from tests.plans.test_training_equals_pytorch import FLAT, IMAGE, LABEL, OPTIMIZERS, cnn, made, mlp

ROUNDING = 1e-6
"""Of the way that training went, in nine steps."""


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(large_models, "_LARGE_BYTES", 0)


class OneFlatParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 6))

    def forward(self, x):
        return torch.stack([x * self.weight, x * self.weight.tanh(), x * self.weight.exp()], dim=2).sum(dim=1)


def one_matrix():
    torch.manual_seed(7)
    return nn.Linear(6, 3, bias=False)


def steps_of(plan):
    """The node that turns once per step."""
    (found,) = [
        node for node in onnx.load_from_string(plan.graph("train")).graph.node if node.op_type in ("Loop", "Scan")
    ]
    return found


def trained(plan, *, steps_per_call=2, keep_memory=True):
    return plans.Executor(plan, keep_memory=keep_memory).train(
        *(plan.initial(role) for role in ("theta", "optimizer_state", "buffers")),
        example_data(plan, 19),
        batch_size=8, epochs=3, learning_rate=0.05, seed=b"order", steps_per_call=steps_per_call,
    )  # fmt: skip


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    ("optimizer", "model"),
    [
        *((name, mlp) for name in OPTIMIZERS),
        *((name, model) for name in ("sgd", "nesterov", "adam") for model in (one_matrix, OneFlatParameter)),
    ],
)
def test_every_optimizer_trains_as_in_pytorch(optimizer, model):
    both = train_both(
        model(), loss="cross_entropy", torch_loss=F.cross_entropy, optimizer=OPTIMIZERS[optimizer], inputs=FLAT,
        targets=LABEL,
    )  # fmt: skip
    assert steps_of(both.plan).op_type == "Scan"
    assert both.error < ROUNDING
    assert both.by_plan.metrics.examples == 57
    assert both.by_plan.metrics.sums["loss"] == pytest.approx(sum(both.losses), rel=1e-5)


OPTIONS = {
    "clipped": {"clip_norm": 0.3, "clip_value": 0.1},
    "proximal": {"proximal": 0.2},
    "proximal and clipped": {"proximal": 0.2, "clip_norm": 0.3},
}
MODELS = {
    "mlp": (mlp, FLAT),
    "dropout": (lambda: nn.Sequential(mlp(), nn.Linear(3, 8), nn.Dropout(0.4), nn.Linear(8, 3)), FLAT),
    "batch-norm": (lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)), FLAT),
    "cnn": (lambda: made(cnn(nn.MaxPool2d(2)), (1, 12, 12)), IMAGE),
    "frozen": (lambda: nn.Sequential(mlp().requires_grad_(False), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3)), FLAT),
}
FORMS = [(model, "adam", {}) for model in MODELS] + [("mlp", "nesterov", of) for of in OPTIONS.values()]
FORMS += [("mlp", "adam", of) for of in OPTIONS.values()]


@pytest.mark.parametrize(("model", "optimizer", "options"), FORMS)
def test_both_forms_train_alike(model, optimizer, options, monkeypatch):
    """Vectors, buffers and metrics, for one step per call and for several: the arithmetic is the same."""
    build, inputs = MODELS[model]
    results = []
    for least, kind in ((large_models._LARGE_BYTES, "Loop"), (0, "Scan")):
        monkeypatch.setattr(large_models, "_LARGE_BYTES", least)
        torch.manual_seed(3)
        plan = plans.trace(
            build(), loss="cross_entropy", optimizer=OPTIMIZERS[optimizer], inputs=inputs, targets=LABEL,
            metrics=["accuracy"], name="t", version="1", check=False, **options,
        )  # fmt: skip
        plans.validate(plan)
        assert steps_of(plan).op_type == kind
        results += [trained(plan, steps_per_call=2), trained(plan, steps_per_call=1)]
    by_loop, one_by_one, *flat = results
    start = plan.initial("theta")
    for found, expected in zip(flat, (by_loop, one_by_one), strict=True):
        assert np.linalg.norm(expected.theta - start) > 0.01
        assert relative(found.theta - start, expected.theta - start) < ROUNDING
        assert relative(found.optimizer_state, expected.optimizer_state) < ROUNDING
        assert relative(found.buffers, expected.buffers) < ROUNDING
        assert found.metrics.sums == pytest.approx(expected.metrics.sums, rel=1e-5)


def relative(found, expected):
    assert found.shape == expected.shape
    return np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30)


@pytest.mark.usefixtures("large")
def test_without_kept_memory_each_call_trains_one_step():
    """Seen in what dropout draws, as each call has a seed of its own."""
    build, inputs = MODELS["dropout"]
    plan = plans.trace(
        build(), loss="cross_entropy", optimizer=Adam(lr=0.01), inputs=inputs, targets=LABEL, name="t", version="1",
        check=False,
    )  # fmt: skip
    lean = trained(plan, steps_per_call=3, keep_memory=False).theta
    assert np.array_equal(lean, trained(plan, steps_per_call=1).theta)
    assert not np.array_equal(lean, trained(plan, steps_per_call=3).theta)


@pytest.mark.usefixtures("large")
def test_the_check_of_a_fresh_plan_covers_this_form():
    plan = plans.trace(
        mlp(), loss="cross_entropy", optimizer="adam", inputs=FLAT, targets=LABEL, name="t", version="1"
    )
    assert steps_of(plan).op_type == "Scan"


def test_what_is_read_again_is_made_after_what_must_come_first():
    """b = -a must come first; c = |a| then reads -b, which is a, and d = -c follows as before."""
    graph = GraphBuilder()
    b = graph.op("Neg", "a")
    c = graph.op("Abs", "a")
    d = graph.op("Neg", c)
    again = graph.op("Neg", b)
    graph.read_again({"a": again}, after=[b])
    made = graph.finish("g", [port("a", 1, [2])], [(b, port("x", 1, [2])), (d, port("y", 1, [2]))])
    assert [(node.op_type, list(node.input), list(node.output)) for node in made.node[:4]] == [
        ("Neg", ["a"], [b]),
        ("Neg", [b], [again]),
        ("Abs", [again], [c]),
        ("Neg", [c], [d]),
    ]


@pytest.mark.usefixtures("large")
def test_numbers_that_are_not_finite_are_still_refused():
    plan = plans.trace(
        one_matrix(), loss="cross_entropy", optimizer="adam", inputs=FLAT, targets={"label": Field("int64")},
        name="t", version="1", check=False,
    )  # fmt: skip
    start = [plan.initial(role) for role in ("theta", "optimizer_state", "buffers")]
    settings = {"batch_size": 4, "epochs": 1, "learning_rate": 0.1, "seed": b"s"}
    for bad in (np.nan, np.inf, -np.inf):
        theta = start[0].copy()
        theta[5] = bad
        with pytest.raises(plans.UnusableDataError, match="theta holds 1 values that are NaN or infinite"):
            plans.Executor(plan).train(theta, *start[1:], example_data(plan, 8), **settings)
