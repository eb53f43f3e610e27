"""Parameters whose gradient is zero by the model's structure, so that floating point alone moves them.

A bias before BatchNorm and the key bias of attention change nothing that a loss sees: their gradient is zero, and
float32 makes rounding noise of it, which Adam scales up to whole steps. Two correct float32 programs agree in
everything but these. Which they are is not guessed from layers' names but measured in float64, where the noise is
nine orders smaller.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

from tests.plans.against_pytorch import torch_optimizer, train_eagerly

ZERO = 1e-12
"""A float64 gradient whose largest value over a whole training is below this is zero but for rounding."""


def in_float64(model, loss, optimizer, plan, data, settings):
    """Train in float64: theta after it, and |dL/dtheta| at its largest on the way, both float64 [P]."""
    largest = np.zeros(plan.manifest.parameter_count)

    def look(parameters):
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters if p.requires_grad]
        np.maximum(largest, np.concatenate([np.abs(g.numpy().ravel()) for g in gradients]), out=largest)

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        twin = copy.deepcopy(model).double().train()
        stepper = torch_optimizer(optimizer, [p for p in twin.parameters() if p.requires_grad])
        wide = {
            name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in data.items()
        }
        train_eagerly(twin, loss, stepper, plan, wide, settings, before_step=look)
    finally:
        torch.set_default_dtype(before)
    theta = np.concatenate([p.detach().numpy().ravel() for p in twin.parameters() if p.requires_grad])
    return theta, largest


def moved_by_rounding(both, largest):
    """Which entries of theta PyTorch in float32 moved though their gradient is zero, bool [P]."""
    return (largest < ZERO) & (both.theta != both.plan.initial("theta"))
