import numpy as np
import pytest
import torch
from torch import nn

import plans
from plans import Field
from plans.authoring.lowering import registry
from plans.errors import TraceError


def trace(model=None, **options):
    settings = {"loss": "cross_entropy", "optimizer": "sgd", "name": "t", "version": "1"}
    fields = {"inputs": {"x": Field("float32", (6,))}, "targets": {"y": Field("int64")}}
    return plans.trace(model or nn.Sequential(nn.Linear(6, 3), nn.Tanh()), **(settings | fields | options))


@pytest.fixture
def wrong_tanh(monkeypatch):
    """An operator lowered wrongly: the kind of fault that only numbers show."""
    wrong = lambda to, value: to.op("Sigmoid", value)  # noqa: E731
    monkeypatch.setitem(registry.LOWERINGS, torch.ops.aten.tanh.default, wrong)


@pytest.mark.usefixtures("wrong_tanh")
def test_a_plan_that_computes_something_else_is_refused_with_the_numbers():
    with pytest.raises(TraceError, match=r"self-check with random data: theta differs from PyTorch by [\d.e-]+ of"):
        trace()


@pytest.mark.usefixtures("wrong_tanh")
def test_the_check_can_be_left_out():
    assert trace(check=False).manifest.parameter_count == 21


def test_the_check_takes_examples_of_the_author():
    data = {"x": np.ones((4, 6), np.float32), "y": np.array([0, 1, 2, 0])}
    assert trace(check=data).manifest.parameter_count == 21
    with pytest.raises(TraceError, match="self-check: plan t reads field 'y'"):
        trace(check={"x": data["x"]})


def test_examples_that_pytorch_cannot_use_are_named():
    def loss(outputs, label):
        return nn.functional.cross_entropy(outputs, label + 100)

    with pytest.raises(
        TraceError, match=r"PyTorch itself fails on the examples .*in the loss, File .*: IndexError.*check=False"
    ):
        trace(loss=loss)


def test_a_loss_that_is_not_finite_on_random_data_asks_for_other_examples():
    def loss(outputs, label):
        return torch.log(outputs.sum() - 1e9) + label.sum()

    with pytest.raises(TraceError, match=r"PyTorch gives NaN or infinity .* check=False"):
        trace(loss=loss)


def test_the_check_leaves_the_plan_as_it_is():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    assert trace(model, optimizer="adam").digest == trace(model, optimizer="adam", check=False).digest
