import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from plans import Adam
from plans.authoring.randomness import Draws
from plans.execute import _call_seed, _stretches
from tests.plans.against_pytorch import MOST_DRAWS, STEPS_PER_CALL, train_both
from tests.plans.coverage import BATCH, PAGE, STEPS, Row, measured, model_of, rows
from tests.plans.test_layers import LAYERS
from tests.plans.test_training_equals_pytorch import LABEL, OPTIMIZERS
from tests.plans.zero_gradients import ZERO, in_float64, moved_by_rounding


def listed():
    lines = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return {
        (line[1].strip(), line[2].strip()): Row(
            *(float(cell) for cell in line[3:7]), int(line[7]), float(line[8]), float(line[9])
        )
        for line in lines[1:]
    }


def test_the_page_has_every_layer_and_no_other():
    assert list(listed()) == rows()


def test_every_row_is_close_to_pytorch():
    for (name, optimizer), row in listed().items():
        assert row.theta < 1e-4
        assert row.loss < 1e-3
        if (name, optimizer) == ("transformers: GPT-2", "adam"):
            assert row.parameters < 2e-4
            assert row.exact < 1e-4
        else:
            assert row.parameters < 2e-5
            assert row.exact < 1e-4 or (np.isnan(row.exact) and name.startswith("Keras"))


def test_a_row_that_float32_cannot_decide_is_closer_to_float64_than_pytorch_is():
    row = listed()["transformers: GPT-2", "adam"]
    assert row.exact < row.rounding


def first_gradients(model, both):
    """Of the first step's examples, each one's part of the gradient: float64 [examples, P]."""
    row = next(_stretches(STEPS * BATCH, BATCH, 1, STEPS_PER_CALL, b"order"))[0]
    twin = copy.deepcopy(model).double().train()
    with Draws(_call_seed(b"order", 0), 0, MOST_DRAWS):
        outputs = twin(torch.from_numpy(both.data["tokens"][row]))
    losses = F.cross_entropy(outputs, torch.from_numpy(both.data["label"][row]), reduction="none") / BATCH
    parts = [torch.autograd.grad(loss, list(twin.parameters()), retain_graph=True) for loss in losses]
    return np.array([np.concatenate([part.numpy().ravel() for part in example]) for example in parts])


def test_that_row_is_decided_by_two_gradients_that_cancel_down_to_eps():
    """How far one rounding of an example's part moves a first step of Adam, whose size is |g| / (|g| + eps)."""
    model, _, inputs = model_of("transformers: GPT-2")
    both = train_both(
        model, loss="cross_entropy", torch_loss=F.cross_entropy, optimizer=Adam(lr=0.01, eps=1e-6), inputs=inputs,
        targets=LABEL, examples=STEPS * BATCH, batch_size=BATCH, epochs=1,
    )  # fmt: skip
    parts = first_gradients(model, both)
    terms, gradient = np.abs(parts).sum(axis=0), np.abs(parts.sum(axis=0))
    kept = terms > ZERO  # all but the key biases, which are left out of every comparison
    terms[~kept] = 0
    moves = {eps: terms * 2.0**-24 * eps / (gradient + eps) ** 2 for eps in (1e-8, 1e-6)}
    (worst, second, third), order = -np.sort(-moves[1e-8])[:3], np.argsort(-moves[1e-8])
    named = {p.name.removeprefix("inner.transformer."): p.offset for p in both.plan.manifest.parameters}
    assert set(order[:2]) == {named["h.1.attn.c_attn.weight"] + 526, named["wte.weight"] + 395}
    assert worst > second > 1e-3 > 1e-4 > third
    assert (terms[order[:2]] > 1e5 * gradient[order[:2]]).all()
    # with an eps above what cancels, nothing is left to decide
    assert moves[1e-6].max() < 1e-3
    assert both.error_of(kept) < 1e-4


def test_only_biases_that_change_nothing_are_left_out():
    """Of layers before BatchNorm and of attention's keys; nowhere else do parameters move without a gradient."""
    of_layers = {name: row.noise for (name, optimizer), row in listed().items() if row.noise and optimizer == "adam"}
    assert of_layers == {
        "batch norm 1d": 8,  # the Linear layer's bias
        "batch norm 2d": 6,  # the convolution's
        "batch norm alone": 6,
        "instance norm": 6,
        "encoder with dropout": 6,  # one key bias per element of the model
        "decoder block": 12,  # two attentions
        "attention": 6,
        "encoder block": 6,
        "transformers: BERT": 32,  # two blocks of width 16
        "transformers: DistilBERT": 32,
        "transformers: GPT-2": 32,
        "transformers: ViT": 32,
    }


@pytest.mark.parametrize(
    ("name", "optimizer", "noise"),
    [("layer norm", "momentum", 0), ("attention", "adam", 6), ("Keras: GRU", "adam", 0)],
)
def test_a_row_can_be_measured_again(name, optimizer, noise):
    row = measured(name, OPTIMIZERS[optimizer], turns=1)
    assert max(row.theta, row.parameters) < 1e-5
    assert row.loss < 1e-4
    assert row.noise == noise
    assert row.speed > 0


def test_the_bias_before_batch_norm_is_what_float64_finds_to_have_no_gradient():
    inputs, make = LAYERS["batch norm 1d"]
    torch.manual_seed(4)
    model = nn.Sequential(make(), nn.Linear(8, 3))
    both = train_both(
        model,
        loss="cross_entropy",
        torch_loss=F.cross_entropy,
        optimizer=Adam(lr=0.01),
        inputs=inputs,
        targets=LABEL,
    )
    _, largest = in_float64(model, F.cross_entropy, Adam(lr=0.01), both.plan, both.data, both.settings)
    noise = moved_by_rounding(both, largest)
    bias = next(p for p in both.plan.manifest.parameters if p.name == "0.0.bias")
    assert np.flatnonzero(noise).tolist() == list(range(bias.offset, bias.offset + 8))
    assert largest[~noise].min() > 1e-6
    assert both.error > 1e-3  # Adam walks with the noise, so without the exception the row would be off
    assert both.error_of(~noise) < 1e-4
