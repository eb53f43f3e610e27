"""Layers that PyTorch computes by one fused kernel, written in plain operators while a model is traced.

PyTorch has no traceable definition of these: its own fix the batch size, or read memory by strides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from plans.authoring.composites.alignment import ctc_loss
from plans.authoring.composites.normalising import batch_norm, group_norm, instance_norm
from plans.authoring.composites.recurrent import gru, lstm
from plans.authoring.composites.sampling import adaptive_average, adaptive_max, embedding_bag, interpolate

__all__ = ["Composites"]


class Composites(TorchFunctionMode):  # type: ignore[misc]  # torch is not seen by mypy
    """Within it, calls of the fused layers below run their definitions in plain operators."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _DEFINITIONS.get(function, function)(*args, **(kwargs or {}))


def _bilinear(left: Tensor, right: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = torch.einsum("...i,oij,...j->...o", left, weight, right)
    return product if bias is None else product + bias


def _cosine_similarity(left: Tensor, right: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    sizes = [(side * side).sum(dim).sqrt().clamp(min=eps) for side in (left, right)]
    return (left * right).sum(dim) / (sizes[0] * sizes[1])


def _weight_norm(direction: Tensor, size: Tensor, dim: int = 0) -> Tensor:
    """Salimans and Kingma (2016): a weight of the given sizes along `dim` (-1: one size) in a direction."""
    axes = [axis for axis in range(direction.dim()) if axis != dim]
    return direction * (size / (direction * direction).sum(axes, keepdim=True).sqrt())


def _hardshrink(value: Tensor, lambd: float = 0.5) -> Tensor:
    return value * (value.abs() > lambd)


def _softshrink(value: Tensor, lambd: float = 0.5) -> Tensor:
    return value - value.clamp(-lambd, lambd)


_DEFINITIONS: dict[Any, Callable[..., Any]] = {
    functional.batch_norm: batch_norm,
    functional.group_norm: group_norm,
    functional.instance_norm: instance_norm,
    functional.ctc_loss: ctc_loss,
    functional.embedding_bag: embedding_bag,
    functional.interpolate: interpolate,
    functional.bilinear: _bilinear,
    functional.hardshrink: _hardshrink,
    functional.softshrink: _softshrink,
    functional.adaptive_avg_pool1d: adaptive_average(1),
    functional.adaptive_avg_pool2d: adaptive_average(2),
    functional.adaptive_avg_pool3d: adaptive_average(3),
    functional.adaptive_max_pool1d: adaptive_max(1),
    functional.adaptive_max_pool2d: adaptive_max(2),
    functional.adaptive_max_pool3d: adaptive_max(3),
    torch.cosine_similarity: _cosine_similarity,
    torch._weight_norm: _weight_norm,  # noqa: SLF001 - what the public parametrisation calls
    torch.group_norm: group_norm,
    torch.lstm: lstm,
    torch.gru: gru,
}
