"""Train the same model on the same batches by plan and by eager PyTorch, and compare."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch

import plans
from plans.authoring.randomness import Draws
from plans.execute import _call_seed, _stretches

MOST_DRAWS = 16
"""Places of one model that draw random numbers; more than any model here has."""


STEPS_PER_CALL = 2


def example_data(plan, examples, seed=0):
    """Random data that fits a plan: standard normal floats, whole numbers below their bound."""
    rng = np.random.default_rng(seed)
    data = {}
    for field in plan.manifest.data_fields:
        shape = (examples, *field.shape)
        if field.dtype.startswith("float"):
            data[field.name] = rng.standard_normal(shape).astype(field.dtype)
        else:
            data[field.name] = rng.integers(0, field.below or 2, shape).astype(field.dtype)
    return data


def torch_optimizer(optimizer, parameters):
    """The torch.optim twin of an optimizer of ours."""
    if isinstance(optimizer, plans.SGD):
        return torch.optim.SGD(
            parameters,
            lr=optimizer.lr,
            momentum=optimizer.momentum,
            dampening=optimizer.dampening,
            nesterov=optimizer.nesterov,
            weight_decay=optimizer.weight_decay,
        )
    if isinstance(optimizer, plans.RMSprop):
        return torch.optim.RMSprop(
            parameters,
            lr=optimizer.lr,
            alpha=optimizer.alpha,
            eps=optimizer.eps,
            momentum=optimizer.momentum,
            weight_decay=optimizer.weight_decay,
        )
    kind = torch.optim.AdamW if optimizer.decoupled else torch.optim.Adam
    return kind(
        parameters,
        lr=optimizer.lr,
        betas=optimizer.betas,
        eps=optimizer.eps,
        weight_decay=optimizer.weight_decay,
    )


@dataclass
class Both:
    plan: plans.Plan
    by_plan: plans.TrainResult
    theta: np.ndarray
    losses: list[float]
    model: torch.nn.Module
    data: dict[str, np.ndarray]
    settings: dict[str, int]

    @property
    def error(self):
        """Distance of both theta relative to the way that training went: far stricter than relative to theta."""
        return self.error_of(np.ones(len(self.theta), bool))

    def error_of(self, chosen):
        """The same for chosen entries of theta alone, bool [P]."""
        moved = np.linalg.norm((self.theta - self.plan.initial("theta"))[chosen])
        return np.linalg.norm((self.by_plan.theta - self.theta)[chosen]) / moved

    @property
    def buffer_error(self):
        """The same for the buffers that travel."""
        after = np.concatenate([b.numpy().ravel() for b in self.model.buffers() if b.is_floating_point()])
        moved = np.linalg.norm(after - self.plan.initial("buffers"))
        return np.linalg.norm(self.by_plan.buffers - after) / moved


def train_both(
    model,
    *,
    loss,
    torch_loss,
    optimizer,
    inputs,
    targets,
    examples=19,
    batch_size=8,
    epochs=3,
    learning_rate=None,
    before_step=None,
    twin=None,
    **options,
):
    """Three epochs over 19 examples in batches of 8: nine steps, of which three are short.

    PyTorch trains a copy of `twin`, which is the model itself unless that is no PyTorch module.
    """
    options = {"check": False} | options  # what follows checks far more
    plan = plans.trace(
        model, loss=loss, optimizer=optimizer, inputs=inputs, targets=targets, name="t", version="1", **options
    )
    plans.validate(plan)
    data = example_data(plan, examples)
    settings = {"batch_size": batch_size, "epochs": epochs}
    result = plans.Executor(plan).train(
        plan.initial("theta"),
        plan.initial("optimizer_state"),
        plan.initial("buffers"),
        data,
        learning_rate=learning_rate or optimizer.lr,
        seed=b"order",
        steps_per_call=STEPS_PER_CALL,
        **settings,
    )
    twin = copy.deepcopy(model if twin is None else twin).train()
    stepper = torch_optimizer(optimizer, [p for p in twin.parameters() if p.requires_grad])
    losses = train_eagerly(
        twin, torch_loss, stepper, plan, data, settings, learning_rate=learning_rate, before_step=before_step
    )
    theta = np.concatenate([p.detach().numpy().ravel() for p in twin.parameters() if p.requires_grad])
    return Both(plan, result, theta, losses, twin, data, settings)


def train_eagerly(model, loss, stepper, plan, data, settings, *, learning_rate=None, before_step=None):
    """The batches and random numbers of the plan's training, by PyTorch; gives each step's loss times examples."""
    tensors = {name: torch.from_numpy(array) for name, array in data.items()}
    losses = []
    examples = len(next(iter(data.values())))
    stretches = _stretches(examples, settings["batch_size"], settings["epochs"], STEPS_PER_CALL, b"order")
    for number, rows in enumerate(stretches):
        for step, row in enumerate(rows):
            if callable(learning_rate):
                stepper.param_groups[0]["lr"] = learning_rate(len(losses))
            index = torch.from_numpy(row[row >= 0])
            batch = {name: tensor[index] for name, tensor in tensors.items()}
            with Draws(_call_seed(b"order", number), step, MOST_DRAWS):
                outputs = model(*(batch[field.name] for field in plan.manifest.inputs))
            value = loss(outputs, *(batch[field.name] for field in plan.manifest.targets))
            stepper.zero_grad()
            value.backward()
            if before_step is not None:
                before_step(list(model.parameters()))
            stepper.step()
            losses.append(float(value.detach()) * len(index))
    return losses
