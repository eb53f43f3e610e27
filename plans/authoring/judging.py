"""Losses and metrics by name: functions of the model's outputs and the targets of one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from plans.authoring.keras_model import keras_loss
from plans.errors import TraceError
from plans.metrics import PerExample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["LossFunction", "as_loss", "as_metrics"]

LossFunction = Callable[..., "Tensor"]


def _mse(outputs: Tensor, target: Tensor) -> Tensor:
    return functional.mse_loss(outputs, _like(target, outputs))


def _bce_with_logits(outputs: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs, _like(target, outputs).to(outputs.dtype))


def _cross_entropy(outputs: Tensor, target: Tensor) -> Tensor:
    """Mean over examples (and positions); every label is in 0..C-1, which nodes check before they train."""
    scores = outputs.movedim(1, -1) if outputs.dim() > 2 else outputs
    classes = torch.arange(scores.shape[-1], device=outputs.device)
    chosen = (target.unsqueeze(-1) == classes).to(scores.dtype)
    return -(torch.log_softmax(scores, -1) * chosen).sum() / target.numel()


def _like(target: Tensor, outputs: Tensor) -> Tensor:
    """A target [b] in the shape of outputs [b, 1]; without this, subtraction would broadcast to [b, b]."""
    if target.dim() == outputs.dim() - 1 and outputs.shape[-1] == 1:
        return target.unsqueeze(-1)
    if target.dim() != outputs.dim():
        raise TraceError(f"loss: outputs have shape {list(outputs.shape)}, target {list(target.shape)}")
    return target


def _hits(outputs: Tensor, target: Tensor) -> Tensor:
    if outputs.dim() == target.dim() + 1 and outputs.shape[1] > 1:
        right = outputs.argmax(1) == target
    else:
        right = (outputs > 0) == (_like(target, outputs) > 0.5)
    return right.flatten(1).to(torch.float32).mean(1) if right.dim() > 1 else right.to(torch.float32)


_LOSSES: dict[str, LossFunction] = {"cross_entropy": _cross_entropy, "mse": _mse, "bce_with_logits": _bce_with_logits}


def as_loss(given: str | LossFunction) -> LossFunction:
    """The function behind a name, or the function itself: `loss(outputs, *targets)` gives the mean over the batch.

    A loss object of Keras is called the way Keras does, targets first.

    Raises:
        TraceError: another name, or something that cannot be called.
    """
    if isinstance(given, str):
        if given not in _LOSSES:
            raise TraceError(f"loss {given!r} is unknown, expected a function or one of {', '.join(_LOSSES)}")
        return _LOSSES[given]
    if not callable(given):
        raise TraceError(f"loss: expected a name or a function, got {type(given).__name__}")
    return keras_loss(given) or given


def as_metrics(given: Sequence[str | PerExample]) -> list[PerExample]:
    """Metrics with their functions; "accuracy" is the share of examples whose largest output is the target's class.

    Raises:
        TraceError: an unknown name, or a name twice.
    """
    metrics = [_as_metric(metric) for metric in given]
    names = ["loss", *(metric.name for metric in metrics)]
    if len(set(names)) != len(names):
        raise TraceError(f"metrics repeat a name: {', '.join(names)} (loss is always the first)")
    return metrics


def _as_metric(given: str | PerExample) -> PerExample:
    if isinstance(given, PerExample):
        return given
    if given == "accuracy":
        return PerExample("accuracy", _hits, bound=1.0)
    raise TraceError(
        f"metric {given!r} is unknown, expected 'accuracy' or plans.PerExample(name, function, bound=...)"
    )
