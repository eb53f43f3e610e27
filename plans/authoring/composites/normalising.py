"""Batch, group and instance normalisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from plans.errors import TraceError

__all__ = ["batch_norm", "group_norm", "instance_norm"]


def group_norm(
    value: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: object,
) -> Tensor:
    """Wu and He (2018): each group of channels of each example is normalised by its own mean and variance."""
    flat = value.reshape(value.shape[0], groups, -1)
    normal = functional.layer_norm(flat, flat.shape[-1:], eps=eps).reshape(value.shape)
    shape = [-1] + [1] * (value.dim() - 2)
    scaled = normal if weight is None else normal * weight.reshape(shape)
    return scaled if bias is None else scaled + bias.reshape(shape)


class _Normalised(torch.autograd.Function):  # type: ignore[misc]  # torch is not seen by mypy
    """(x - mean) / sqrt(variance + eps) with the statistics of x itself, by Ioffe and Szegedy (2015), section 3.

    Its gradient is written out: autograd's, through the mean and the variance, takes twice the passes over x.
    """

    @staticmethod
    def forward(context: Any, value: Tensor, mean: Tensor, inverse: Tensor, axes: list[int]) -> Tensor:
        normal = (value - mean) * inverse
        context.save_for_backward(normal, inverse)
        context.axes = axes
        return normal

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Any:
        normal, inverse = context.saved_tensors
        even = gradient.mean(context.axes, keepdim=True)
        along = (gradient * normal).mean(context.axes, keepdim=True)
        return (gradient - even - normal * along) * inverse, None, None, None


def batch_norm(
    value: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,  # noqa: FBT001, FBT002 - PyTorch's order
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Ioffe and Szegedy (2015). A batch of one has no unbiased variance; its biased one, 0, is kept instead."""
    shape = [1, -1] + [1] * (value.dim() - 2)
    if training or running_mean is None or running_var is None:
        axes = [0, *range(2, value.dim())]
        with torch.no_grad():
            mean = value.mean(axes, keepdim=True)
            off = value - mean
            variance = (off * off).mean(axes, keepdim=True)
            if running_mean is not None and running_var is not None:
                count = value.numel() // value.shape[1]
                unbiased = variance * (count / torch.sym_max(count - 1, 1))
                running_mean.mul_(1 - momentum).add_(mean.reshape(-1) * momentum)
                running_var.mul_(1 - momentum).add_(unbiased.reshape(-1) * momentum)
        normal: Tensor = _Normalised.apply(value, mean, torch.rsqrt(variance + eps), axes)
    else:
        normal = (value - running_mean.reshape(shape)) * torch.rsqrt(running_var.reshape(shape) + eps)
    scaled = normal if weight is None else normal * weight.reshape(shape)
    return scaled if bias is None else scaled + bias.reshape(shape)


def instance_norm(
    value: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,  # noqa: FBT001, FBT002 - PyTorch's order
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Ulyanov et al. (2016): a group per channel.

    Raises:
        TraceError: running statistics are asked for.
    """
    del running_var, momentum
    if running_mean is not None or not use_input_stats:
        raise TraceError("InstanceNorm(track_running_stats=True) has no lowering; leave it False")
    return group_norm(value, value.shape[1], weight, bias, eps)
