"""Dropout: a fresh mask each step, from the seed alone, the same numbers in PyTorch and in the plan."""

import numpy as np
import pytest
import torch
from torch import nn

import plans
from plans import Field
from plans.authoring.randomness import COEFFICIENTS, PRIME, coefficients, hashed


class Passing(nn.Module):
    """Shows its dropout: the output of a row of ones is the mask, scaled."""

    def __init__(self, p):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(50))
        self.drop = nn.Dropout(p)

    def forward(self, x):
        return self.drop(x * self.weight)


def masks(p, *, seed, steps=4, batch=16):
    """The masks of each step, as the gradient of the sum shows them: which weights moved, and how far."""
    plan = plans.trace(
        Passing(p),
        loss=lambda out, y: (out * y).sum() / y.shape[0],
        optimizer=plans.SGD(lr=1.0),
        inputs={"x": Field("float32", (50,))},
        targets={"y": Field("float32", (50,))},
        name="t",
        version="1",
    )
    executor = plans.Executor(plan)
    data = {"x": np.ones((batch, 50), np.float32), "y": np.ones((batch, 50), np.float32)}
    rows = np.tile(np.arange(batch), (steps, 1))
    state = [plan.initial(role) for role in ("theta", "optimizer_state", "buffers")]
    after = [executor.call_train(state, data, rows[:n], np.ones(n, np.float32), seed)[0] for n in range(steps + 1)]
    return -np.diff(np.stack(after), axis=0) * batch * (1 - p)


def test_masks_are_fresh_each_step_and_of_the_right_rate():
    kept = masks(0.25, seed=7)
    assert not any((kept[a] == kept[b]).all() for a in range(4) for b in range(a))
    # 4 * 16 * 50 independent choices: five standard deviations
    assert kept.mean() / 16 == pytest.approx(0.75, abs=5 * np.sqrt(0.75 * 0.25 / 3200))


def test_the_same_seed_gives_the_same_masks_and_another_others():
    first, again, other = masks(0.5, seed=7), masks(0.5, seed=7), masks(0.5, seed=8)
    assert (first == again).all()
    assert not (first == other).all()


def test_coefficients_differ_by_seed_step_and_draw():
    table = np.concatenate([coefficients(seed, 50, 3) for seed in (0, 1, 2**31, 2**62 + 5)])
    assert len(np.unique(table)) == table.size == 4 * 50 * 3 * COEFFICIENTS
    assert table.min() >= 0
    assert table.max() < PRIME


def test_draws_look_uniform_and_independent():
    draws = np.stack([hashed(row, 4096).numpy() for row in coefficients(3, 64, 1)]) / PRIME
    counts = np.histogram(draws, bins=64, range=(0, 1))[0]
    expected = draws.size / 64
    # chi-squared of 63 degrees of freedom: mean 63, standard deviation 11.2
    assert ((counts - expected) ** 2 / expected).sum() < 63 + 6 * 11.2
    for shift in (1, 2, 50, 64):
        correlation = np.corrcoef(draws[:, shift:].ravel(), draws[:, :-shift].ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(draws.size)
    across = np.corrcoef(draws[1:].ravel(), draws[:-1].ravel())[0, 1]
    assert abs(across) < 5 / np.sqrt(draws.size)


def test_evaluation_and_prediction_drop_nothing():
    plan = plans.trace(
        nn.Sequential(nn.Dropout(0.9), nn.Linear(6, 3)),
        loss="cross_entropy",
        optimizer="sgd",
        inputs={"x": Field("float32", (6,))},
        targets={"y": Field("int64")},
        name="t",
        version="1",
    )
    for kind, random in (("train", True), ("evaluate", False), ("predict", False)):
        operators = {function.name: function for function in plans.card(plan).functions}[kind].operators
        assert ("Mod" in operators) is random
