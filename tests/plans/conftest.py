import logging
import os

os.environ["KERAS_BACKEND"] = "torch"  # before anything imports keras

import pytest
import torch
from torch import nn

import plans
from protocol.identity import Identity


@pytest.fixture(autouse=True, scope="session")
def _without_torch_traces():
    """PyTorch's structured log formats a stack trace per tensor as soon as any handler, pytest's too, takes DEBUG."""
    logging.getLogger("torch.__trace").setLevel(logging.CRITICAL)


@pytest.fixture(scope="session")
def plan():
    torch.manual_seed(0)
    return plans.trace(
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
        loss="cross_entropy",
        optimizer=plans.SGD(lr=0.1, momentum=0.5),
        inputs={"x": plans.Field("float32", (6,))},
        targets={"label": plans.Field("int64")},
        metrics=["accuracy"],
        name="small",
        version="1",
    )


@pytest.fixture(scope="session")
def identity():
    return Identity(bytes(range(32)))


@pytest.fixture(scope="session")
def signed(plan, identity):
    return plan.sign(identity)
