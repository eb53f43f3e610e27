import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import plans
from plans import SGD, Adam, Field, RMSprop
from plans.authoring.stepping import _share_seen
from tests.plans.against_pytorch import train_both

IMAGE = {"image": Field("float32", (1, 12, 12))}
LABEL = {"label": Field("int64")}
FLAT = {"x": Field("float32", (6,))}

OPTIMIZERS = {
    "sgd": SGD(lr=0.1),
    "decay": SGD(lr=0.1, weight_decay=0.01),
    "momentum": SGD(lr=0.05, momentum=0.9),
    "dampened": SGD(lr=0.05, momentum=0.9, dampening=0.3),
    "nesterov": SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": Adam(lr=0.01),
    "adam-decay": Adam(lr=0.01, weight_decay=0.1),
    "rmsprop": RMSprop(lr=0.01),
    "rmsprop-momentum": RMSprop(lr=0.01, alpha=0.9, momentum=0.5, weight_decay=0.01),
    "adamw": Adam(lr=0.01, weight_decay=0.1, decoupled=True),
}


def mlp():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def cnn(pool):
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), pool, nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    )


def made(model, shape):
    model(torch.zeros(2, *shape))  # lets lazy layers learn their size
    return model


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_mlp_trains_as_in_pytorch_with_every_optimizer(optimizer):
    both = train_both(
        mlp(), loss="cross_entropy", torch_loss=F.cross_entropy, optimizer=optimizer, inputs=FLAT, targets=LABEL
    )
    assert both.error < 1e-6
    assert both.by_plan.metrics.examples == 57
    assert both.by_plan.metrics.sums["loss"] == pytest.approx(sum(both.losses), rel=1e-5)


@pytest.mark.parametrize("betas", [(0.0, 0.999), (0.9, 0.0), (0.99, 0.9999)])
def test_adam_corrects_for_its_start_as_exactly_as_pytorch(betas):
    """PyTorch corrects in float64; 1 - 0.9999 in float32 is off by 1e-4 of it."""
    both = train_both(
        mlp(), loss="cross_entropy", torch_loss=F.cross_entropy, optimizer=Adam(lr=0.01, betas=betas), inputs=FLAT,
        targets=LABEL,
    )  # fmt: skip
    assert both.error < 1e-6


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999, 0.9999])
def test_the_share_seen_is_exact_from_the_first_step_to_the_millionth(beta):
    steps = torch.tensor([1.0, 2, 3, 10, 99, 1000, 12_345, 1_000_000])
    exact = -torch.expm1(steps.double() * (math.log(beta) if beta else -math.inf))
    assert (_share_seen(beta, steps).double() / exact - 1).abs().max() < 5e-7


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, stride=2),
        nn.AvgPool2d(3, stride=2, padding=1),
    ],
    ids=str,
)
def test_cnn_trains_as_in_pytorch(pool, optimizer):
    both = train_both(
        made(cnn(pool), (1, 12, 12)),
        loss="cross_entropy",
        torch_loss=F.cross_entropy,
        optimizer=OPTIMIZERS[optimizer],
        inputs=IMAGE,
        targets=LABEL,
    )
    assert both.error < 1e-5


def test_linear_regression_trains_as_in_pytorch():
    both = train_both(
        nn.Linear(6, 1),
        loss="mse",
        torch_loss=lambda out, y: F.mse_loss(out[:, 0], y),
        optimizer=SGD(lr=0.05),
        inputs=FLAT,
        targets={"y": Field("float32")},
    )
    assert both.error < 1e-5


def test_logistic_regression_trains_as_in_pytorch():
    both = train_both(
        nn.Linear(6, 1),
        loss="bce_with_logits",
        torch_loss=lambda out, y: F.binary_cross_entropy_with_logits(out[:, 0], y.float()),
        optimizer=SGD(lr=0.5),
        inputs=FLAT,
        targets={"y": Field("int64", below=2)},
        metrics=["accuracy"],
    )
    assert both.error < 1e-5


LOSSES = {
    "label smoothing": (nn.CrossEntropyLoss(label_smoothing=0.1), Field("int64", below=3)),
    "class weights": (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5])), Field("int64", below=3)),
    "ignored index": (nn.CrossEntropyLoss(ignore_index=1), Field("int64", below=3)),
    "class probabilities": (lambda out, y: F.cross_entropy(out, y.softmax(-1)), Field("float32", (3,))),
    "nll": (lambda out, y: F.nll_loss(F.log_softmax(out, -1), y), Field("int64", below=3)),
    "l1": (nn.L1Loss(), Field("float32", (3,))),
    "huber": (nn.HuberLoss(delta=0.7), Field("float32", (3,))),
    "smooth l1": (nn.SmoothL1Loss(beta=0.5), Field("float32", (3,))),
    "mse": (nn.MSELoss(), Field("float32", (3,))),
    "bce": (lambda out, y: F.binary_cross_entropy(torch.sigmoid(out), torch.sigmoid(y)), Field("float32", (3,))),
    "bce with weights": (
        lambda out, y: F.binary_cross_entropy_with_logits(out, (y > 0).float(), pos_weight=torch.tensor([1.0, 2, 3])),
        Field("float32", (3,)),
    ),
    "kl divergence": (
        lambda out, y: F.kl_div(F.log_softmax(out, -1), y.softmax(-1), reduction="batchmean"),
        Field("float32", (3,)),
    ),
    "poisson": (lambda out, y: F.poisson_nll_loss(out, y.abs()), Field("float32", (3,))),
    "cosine": (lambda out, y: (1 - F.cosine_similarity(out, y)).mean(), Field("float32", (3,))),
}


@pytest.mark.parametrize(("loss", "target"), LOSSES.values(), ids=LOSSES)
def test_loss_trains_as_in_pytorch(loss, target):
    both = train_both(
        mlp(), loss=loss, torch_loss=loss, optimizer=SGD(lr=0.1), inputs=FLAT, targets={"y": target}, epochs=2
    )
    assert both.error < 1e-5


def _clip_norm(parameters):
    nn.utils.clip_grad_norm_(parameters, 0.3)


def _clip_value(parameters):
    nn.utils.clip_grad_value_(parameters, 0.05)


class Proximal:
    """FedProx by hand: the pull towards the parameters of the first step."""

    def __init__(self):
        self.start = None

    def __call__(self, parameters):
        if self.start is None:
            self.start = [p.detach().clone() for p in parameters]
        for p, start in zip(parameters, self.start, strict=True):
            p.grad += 0.5 * (p.detach() - start)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw", "rmsprop"])
@pytest.mark.parametrize(
    ("options", "by_hand"),
    [({"clip_norm": 0.3}, _clip_norm), ({"clip_value": 0.05}, _clip_value), ({"proximal": 0.5}, Proximal())],
    ids=["clip_norm", "clip_value", "proximal"],
)
def test_bounded_and_proximal_steps_equal_pytorch(options, by_hand, optimizer):
    both = train_both(
        mlp(),
        loss="cross_entropy",
        torch_loss=F.cross_entropy,
        optimizer=OPTIMIZERS[optimizer],
        inputs=FLAT,
        targets=LABEL,
        before_step=by_hand if not isinstance(by_hand, Proximal) else Proximal(),
        **options,
    )
    plain = train_both(
        mlp(), loss="cross_entropy", torch_loss=F.cross_entropy, optimizer=OPTIMIZERS[optimizer], inputs=FLAT,
        targets=LABEL,
    )  # fmt: skip
    assert both.error < 1e-5
    assert np.linalg.norm(plain.theta - both.theta) > 1e-3 * np.linalg.norm(plain.theta - plain.plan.initial("theta"))


def test_a_schedule_of_learning_rates_is_followed():
    both = train_both(
        mlp(),
        loss="cross_entropy",
        torch_loss=F.cross_entropy,
        optimizer=SGD(lr=0.1, momentum=0.9),
        inputs=FLAT,
        targets=LABEL,
        learning_rate=lambda step: 0.1 * min(1.0, (step + 1) / 5) * 0.9**step,
    )
    assert both.error < 1e-5


def test_a_loss_of_the_authors_own_trains_as_in_pytorch():
    def loss(outputs, label):
        return F.cross_entropy(outputs, label, weight=torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1)

    both = train_both(
        mlp(), loss=loss, torch_loss=loss, optimizer=SGD(lr=0.1), inputs=FLAT, targets={"y": Field("int64", below=3)}
    )
    assert both.error < 1e-5


@pytest.mark.parametrize("batch_size", [1, 2, 18, 19, 100])
def test_any_batch_size_is_exact_short_last_batch_included(batch_size):
    both = train_both(
        mlp(),
        loss="cross_entropy",
        torch_loss=F.cross_entropy,
        optimizer=SGD(lr=0.05, momentum=0.5),
        inputs=FLAT,
        targets=LABEL,
        batch_size=batch_size,
    )
    assert both.error < 1e-5


def test_metrics_count_every_example_once():
    plan = plans.trace(
        mlp(),
        loss="cross_entropy",
        optimizer="sgd",
        inputs=FLAT,
        targets=LABEL,
        metrics=["accuracy", plans.PerExample("first", lambda out, y: out[:, 0].abs(), bound=10.0)],
        name="t",
        version="1",
    )
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1003, 6)).astype(np.float32), rng.integers(0, 3, 1003)
    model = mlp()
    got = plans.Executor(plan).evaluate(plan.initial("theta"), plan.initial("buffers"), {"x": x, "label": y})
    out = model(torch.from_numpy(x)).detach()
    assert got.examples == 1003
    assert got.sums["accuracy"] == (out.argmax(1).numpy() == y).sum()
    assert got.mean("loss") == pytest.approx(float(F.cross_entropy(out, torch.from_numpy(y))), rel=1e-5)
    assert got.sums["first"] == pytest.approx(float(out[:, 0].abs().sum()), rel=1e-5)


def test_prediction_equals_pytorch():
    plan = plans.trace(
        mlp(), loss="cross_entropy", optimizer="sgd", inputs=FLAT, targets=LABEL, name="t", version="1"
    )
    x = np.random.default_rng(0).standard_normal((300, 6)).astype(np.float32)
    got = plans.Executor(plan).predict(plan.initial("theta"), plan.initial("buffers"), {"x": x})
    assert np.allclose(got, mlp()(torch.from_numpy(x)).detach().numpy(), atol=1e-6)
