"""The arithmetic of optimizers on PyTorch tensors, and how much state each keeps.

A step is: the loss's gradient, plus the proximal term's; clipped by value, then by norm; then the optimizer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from plans.errors import TraceError
from plans.optimizers import SGD, RMSprop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from plans.optimizers import Adam, Optimizer

__all__ = ["Stepping"]

_ONE = (1,)
"""Stands for a parameter where only the order of state matters."""


@dataclass(frozen=True, kw_only=True)
class Stepping:
    """How gradients become a step.

    `clip_norm` bounds the norm of all gradients together, as `torch.nn.utils.clip_grad_norm_`; `clip_value` each
    element, as `clip_grad_value_`. `proximal` is the weight mu of FedProx's term mu/2 |theta - checkpoint|^2 (Li et
    al., 2020), whose gradient needs the way from the checkpoint: it is kept as state, which starts at zero.
    """

    optimizer: Optimizer
    clip_norm: float | None = None
    clip_value: float | None = None
    proximal: float = 0.0

    def __post_init__(self) -> None:
        for name, bound in (("clip_norm", self.clip_norm), ("clip_value", self.clip_value)):
            if bound is not None and not 0 < bound < math.inf:
                raise TraceError(f"{name}={bound}, expected a finite number above 0")
        if not 0 <= self.proximal < math.inf:
            raise TraceError(f"proximal={self.proximal}, expected a finite number of at least 0")

    def state_shapes(self, parameters: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes of all state tensors, in the order they lie in the flat vector."""
        return [*_state_shapes(self.optimizer, parameters), *(parameters if self.proximal else [])]

    def update(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], state: Sequence[Tensor], lr: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Parameters and state after one step."""
        return self.advance(parameters, self.directions(gradients, state), state, lr)

    def directions(self, gradients: Sequence[Tensor], state: Sequence[Tensor]) -> Sequence[Tensor]:
        """The gradients with all that is done to them before the optimizer sees them."""
        if self.proximal:
            ways = state[len(state) - len(gradients) :]
            gradients = [g + way * self.proximal for g, way in zip(gradients, ways, strict=True)]
        return self._clipped(gradients)

    def advance(
        self, parameters: Sequence[Tensor], directions: Sequence[Tensor], state: Sequence[Tensor], lr: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Parameters and state after a step in these directions: by elements, so parts of tensors do as well."""
        if not self.proximal:
            return _apply_update(self.optimizer, parameters, directions, state, lr)
        split = len(state) - len(parameters)
        own, ways = state[:split], state[split:]
        after, next_own = _apply_update(self.optimizer, parameters, directions, own, lr)
        further = [way + (new - old) for way, new, old in zip(ways, after, parameters, strict=True)]
        return after, [*next_own, *further]

    def state_of(self, at: int, count: int) -> list[tuple[int, bool]]:
        """Where the state of parameter `at` of `count` is among all state tensors, in the order that `advance` takes.

        With each index, whether that tensor is the parameter's own, in its shape, and no number for all parameters.
        """
        found, before = [], 0
        for shape in self.state_shapes([_ONE]):
            own = shape is _ONE
            found.append((before + at if own else before, own))
            before += count if own else 1
        return found

    def _clipped(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        if self.clip_value is not None:
            gradients = [torch.clamp(g, -self.clip_value, self.clip_value) for g in gradients]
        if self.clip_norm is not None:
            total = torch.sqrt(torch.stack([(g * g).sum() for g in gradients]).sum())
            # the small number is PyTorch's, against division by zero
            scale = torch.clamp(self.clip_norm / (total + 1e-6), max=1.0)
            gradients = [g * scale for g in gradients]
        return gradients


def _state_shapes(optimizer: Optimizer, parameters: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Shapes of the optimizer's state tensors, in the order they lie in its flat vector."""
    if isinstance(optimizer, SGD):
        if not optimizer.momentum:
            return []
        # with dampening the first step differs (PyTorch starts the momentum undamped), so steps are counted
        return [*parameters, *([()] if optimizer.dampening else [])]
    if isinstance(optimizer, RMSprop):
        return [*parameters, *(parameters if optimizer.momentum else [])]
    return [*parameters, *parameters, ()]


def _apply_update(
    optimizer: Optimizer,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    state: Sequence[Tensor],
    lr: Tensor,
) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters and state after one step, as torch.optim computes them."""
    if isinstance(optimizer, SGD):
        return _sgd(optimizer, parameters, gradients, state, lr)
    if isinstance(optimizer, RMSprop):
        return _rmsprop(optimizer, parameters, gradients, state, lr)
    return _adam(optimizer, parameters, gradients, state, lr)


def _rmsprop(
    optimizer: RMSprop, parameters: Sequence[Tensor], gradients: Sequence[Tensor], state: Sequence[Tensor], lr: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    count = len(parameters)
    directions = [_decayed(g, p, optimizer.weight_decay) for p, g in zip(parameters, gradients, strict=True)]
    squares = [
        old * optimizer.alpha + d * d * (1 - optimizer.alpha)
        for old, d in zip(state[:count], directions, strict=True)
    ]
    steps = [d / (torch.sqrt(square) + optimizer.eps) for d, square in zip(directions, squares, strict=True)]
    if not optimizer.momentum:
        return [p - lr * step for p, step in zip(parameters, steps, strict=True)], squares
    moments = [old * optimizer.momentum + step for old, step in zip(state[count:], steps, strict=True)]
    return [p - lr * moment for p, moment in zip(parameters, moments, strict=True)], [*squares, *moments]


def _sgd(
    optimizer: SGD, parameters: Sequence[Tensor], gradients: Sequence[Tensor], state: Sequence[Tensor], lr: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    directions = [_decayed(g, p, optimizer.weight_decay) for p, g in zip(parameters, gradients, strict=True)]
    after = list(state)
    if optimizer.momentum:
        count = len(parameters)
        scale = 1 - optimizer.dampening
        damped = directions
        if optimizer.dampening:
            first = state[count] == 0
            damped = [torch.where(first, d, d * scale) for d in directions]
            after[count] = state[count] + 1
        after[:count] = [old * optimizer.momentum + d for old, d in zip(state[:count], damped, strict=True)]
        directions = (
            [d + new * optimizer.momentum for d, new in zip(directions, after[:count], strict=True)]
            if optimizer.nesterov
            else after[:count]
        )
    return [p - lr * d for p, d in zip(parameters, directions, strict=True)], after


def _decayed(gradient: Tensor, parameter: Tensor, weight_decay: float) -> Tensor:
    return gradient + parameter * weight_decay if weight_decay else gradient


def _adam(
    optimizer: Adam, parameters: Sequence[Tensor], gradients: Sequence[Tensor], state: Sequence[Tensor], lr: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    count = len(parameters)
    first, second, steps = state[:count], state[count : 2 * count], state[2 * count] + 1
    beta1, beta2 = optimizer.betas
    # Kingma and Ba (2015), algorithm 1, arranged as torch.optim.Adam does
    step_size = lr / _share_seen(beta1, steps)
    root_correction = torch.sqrt(_share_seen(beta2, steps))
    after, moments, squares = [], [], []
    for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
        start = p * (1 - lr * optimizer.weight_decay) if optimizer.decoupled and optimizer.weight_decay else p
        gradient = g if optimizer.decoupled else _decayed(g, p, optimizer.weight_decay)
        moment = m * beta1 + gradient * (1 - beta1)
        square = v * beta2 + gradient * gradient * (1 - beta2)
        after.append(start - step_size * moment / (torch.sqrt(square) / root_correction + optimizer.eps))
        moments.append(moment)
        squares.append(square)
    return after, [*moments, *squares, steps]


def _share_seen(beta: float, steps: Tensor) -> Tensor:
    """1 - beta^steps, the share of what was seen in a running mean that began at zero.

    By tanh, to float32's last digits: 1 - 0.999 itself has five in float32, and PyTorch computes it in float64.
    """
    half = torch.tanh(steps * (-math.log(beta) / 2)) if beta else torch.ones_like(steps)
    return 2 * half / (1 + half)
