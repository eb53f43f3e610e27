"""Connectionist temporal classification: the loss of a sequence of labels whose places are not known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plans.errors import TraceError

__all__ = ["ctc_loss"]

_NEVER = -1e30
"""The logarithm of a probability of zero; finite, so that differences of two such are numbers."""


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,  # noqa: FBT001, FBT002 - PyTorch's order
) -> Tensor:
    """`torch.nn.functional.ctc_loss` by the forward recursion of Graves et al. (2006), equations 6 and 7.

    `log_probs` [places, batch, classes], `targets` [batch, most labels], both lengths [batch]. Autograd gives the
    backward recursion; places are unrolled.

    Raises:
        TraceError: targets one after another, or lengths that are no tensors: they do not say whose they are.
    """
    for name, value, rank in (
        ("targets", targets, 2), ("input_lengths", input_lengths, 1), ("target_lengths", target_lengths, 1)
    ):  # fmt: skip
        if not isinstance(value, torch.Tensor) or value.dim() != rank:
            got = f"a tensor of rank {value.dim()}" if isinstance(value, torch.Tensor) else type(value).__name__
            shape = "[batch, most labels]" if rank == 2 else "[batch]"
            raise TraceError(f"ctc_loss: {name} is {got}, expected a tensor {shape}")
    if log_probs.dim() != 3:
        raise TraceError(f"ctc_loss: log_probs has rank {log_probs.dim()}, expected [places, batch, classes]")
    labels = _between_blanks(targets, blank)
    reached = _reached(log_probs, labels, input_lengths)
    last = (2 * target_lengths).unsqueeze(1)
    on_label = torch.where(last > 0, reached.gather(1, (last - 1).clamp(min=0)), _NEVER)
    total = _either(reached.gather(1, last), on_label).squeeze(1)
    losses = torch.where(total > _NEVER / 2, -total, 0.0 if zero_infinity else torch.inf)
    if reduction == "mean":
        return (losses / target_lengths.clamp(min=1)).mean()
    return losses.sum() if reduction == "sum" else losses


def _between_blanks(targets: Tensor, blank: int) -> Tensor:
    """[batch, 2 labels + 1]: a blank before, between and after them."""
    blanks = torch.full_like(targets, blank)
    return torch.cat([torch.stack([blanks, targets], 2).flatten(1), blanks[:, :1]], 1)


def _reached(log_probs: Tensor, labels: Tensor, input_lengths: Tensor) -> Tensor:
    """[batch, labels]: the logarithm of how probable it is to be at each label at an example's last place."""
    at_labels = log_probs.gather(2, labels.unsqueeze(0).expand(log_probs.shape[0], -1, -1)).unbind(0)
    never = torch.full_like(at_labels[0][:, :2], _NEVER)
    # what lies between may be left out, unless both are blanks or the same label
    skips = torch.cat([never, torch.where(labels[:, 2:] != labels[:, :-2], 0.0, _NEVER)], 1)
    reached = torch.cat([at_labels[0][:, :2], torch.full_like(at_labels[0][:, 2:], _NEVER)], 1)
    for place, here in enumerate(at_labels[1:], start=1):
        one_back = torch.cat([never[:, :1], reached[:, :-1]], 1)
        two_back = torch.cat([never, reached[:, :-2]], 1) + skips
        moved = _either(reached, one_back, two_back) + here
        reached = torch.where((place < input_lengths).unsqueeze(1), moved, reached)
    return reached


def _either(*logs: Any) -> Tensor:
    """The logarithm of a sum of probabilities, from their logarithms."""
    most = logs[0].detach()
    for other in logs[1:]:
        most = torch.maximum(most, other.detach())
    return most + torch.log(sum(torch.exp(log - most) for log in logs))
