import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from plans import Adam
from tests.plans.against_pytorch import train_both
from tests.plans.coverage import PAGE, Row, measured, rows
from tests.plans.test_layers import LAYERS
from tests.plans.test_training_equals_pytorch import LABEL, OPTIMIZERS
from tests.plans.zero_gradients import in_float64, moved_by_rounding


def listed():
    lines = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return {
        (line[1].strip(), line[2].strip()): Row(
            *(float(cell) for cell in line[3:6]), int(line[6]), float(line[7]), float(line[8])
        )
        for line in lines[1:]
    }


def test_the_page_has_every_layer_and_no_other():
    assert list(listed()) == rows()


def test_every_row_is_close_to_pytorch():
    off = {name for name, row in listed().items() if row.parameters >= 1e-4}
    assert off <= {("transformers: GPT-2", "adam")}
    for (name, _), row in listed().items():
        assert row.exact < 1e-4 or (np.isnan(row.exact) and name.startswith("Keras"))
        assert row.parameters < 2e-4
        assert row.loss < 1e-3


def test_a_row_that_float32_cannot_decide_is_closer_to_float64_than_pytorch_is():
    row = listed()["transformers: GPT-2", "adam"]
    assert row.exact < row.rounding


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
    row = measured(name, OPTIMIZERS[optimizer])
    assert max(row.parameters, row.loss) < 1e-4
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
