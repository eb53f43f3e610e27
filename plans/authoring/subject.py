"""What is traced: a model's tensors sorted into parameters and fixed state, and functions over lists of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch.func import functional_call

from plans.authoring.places import inside_modules
from plans.authoring.stepping import Stepping
from plans.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from torch import Tensor, nn

    from plans.authoring.judging import LossFunction
    from plans.metrics import PerExample
__all__ = ["Subject", "is_local", "subject_of", "with_changing"]

_EXACT = 1 << 24
"""Whole numbers up to here are exact in float32, in which buffers travel."""


@dataclass(frozen=True)
class Subject:
    """A model with everything that judges and moves it.

    `parameters` are trained and travel as `theta`. `buffers` are what forward changes while training (the running
    statistics of BatchNorm) and travel beside them. `frozen` never changes and never travels: it is part of the plan.
    """

    model: nn.Module
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    frozen: dict[str, Tensor]
    input_count: int
    loss: LossFunction
    metrics: Sequence[PerExample]
    stepping: Stepping

    def call(
        self,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
        frozen: Sequence[Tensor],
        inputs: Sequence[Tensor],
    ) -> tuple[Tensor, list[Tensor], set[str]]:
        """The model's outputs, the buffers after them, and the names of all tensors that forward changed.

        Raises:
            TraceError: the model gives something else than one tensor with a row per example.
        """
        tensors = dict(zip(self.parameters, parameters, strict=True))
        # all arrive as float32, the model gets them in its own dtype; a copy, since forward may write into it
        for (name, original), value in zip(self._fixed(), [*buffers, *frozen], strict=True):
            tensors[name] = value.to(original.dtype, copy=True)
        before = {name: (tensors[name], tensors[name]._version) for name, _ in self._fixed()}  # noqa: SLF001 - the only counter of changes
        with inside_modules(self.model):
            outputs: Any = functional_call(self.model, tensors, tuple(inputs))
        changed = {
            name
            for name, (given, version) in before.items()
            if tensors[name] is not given or given._version != version  # noqa: SLF001 - as above
        }
        if not isinstance(outputs, torch.Tensor) or outputs.dim() == 0:
            got = f"a tensor of rank {outputs.dim()}" if isinstance(outputs, torch.Tensor) else type(outputs).__name__
            raise TraceError(
                f"the model gives {got}, expected one tensor with a row per example; wrap it in a module that "
                "returns one, as in return self.model(x).logits"
            )
        return outputs, [tensors[name] for name in self.buffers], changed

    def _fixed(self) -> list[tuple[str, Tensor]]:
        return [*self.buffers.items(), *self.frozen.items()]

    def judge(self, outputs: Tensor, targets: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Loss (mean over the batch) and the sum of each further metric over the batch.

        Raises:
            TraceError: a loss that is no scalar, or a metric that is not one number per example.
        """
        try:
            loss = self.loss(outputs, *targets)
        except Exception as error:
            error.add_note("in the loss")
            raise
        if not isinstance(loss, torch.Tensor) or loss.dim() != 0:
            shape = _shape(loss) if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise TraceError(f"the loss gives {shape}, expected a scalar tensor: the mean over the batch")
        return loss, [_summed(metric, outputs, targets) for metric in self.metrics]

    def train_step(
        self,
        parameters: Sequence[Tensor],
        state: Sequence[Tensor],
        buffers: Sequence[Tensor],
        frozen: Sequence[Tensor],
        data: Sequence[Tensor],
        lr: Tensor,
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor, list[Tensor]]:
        """One step on one batch: parameters, state and buffers after it, loss and metric sums before it."""
        given, gradients, moved, loss, sums = self.gradients(parameters, buffers, frozen, data)
        with torch.no_grad():
            after, next_state = self.stepping.update(given, gradients, state, lr)
        return after, next_state, moved, loss, sums

    def gradients(
        self,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
        frozen: Sequence[Tensor],
        data: Sequence[Tensor],
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor, list[Tensor]]:
        """The parameters as forward left them, the loss's gradients, buffers after forward, loss and metric sums."""
        leaves = [parameter.detach().requires_grad_() for parameter in parameters]
        outputs, moved, _ = self.call(leaves, buffers, frozen, data[: self.input_count])
        loss, sums = self.judge(outputs, data[self.input_count :])
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        with torch.no_grad():
            filled = [torch.zeros_like(p) if g is None else g for p, g in zip(leaves, gradients, strict=True)]
        return (
            [leaf.detach() for leaf in leaves],
            filled,
            [value.detach() for value in moved],
            loss.detach(),
            [value.detach() for value in sums],
        )

    def evaluate_step(
        self,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
        frozen: Sequence[Tensor],
        data: Sequence[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """Loss and metric sums on one batch."""
        with torch.no_grad():
            return self.judge(
                self.predict(parameters, buffers, frozen, data[: self.input_count]), data[self.input_count :]
            )

    def predict(
        self,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
        frozen: Sequence[Tensor],
        data: Sequence[Tensor],
    ) -> Tensor:
        """Outputs for a batch of inputs.

        Raises:
            TraceError: forward changes a buffer outside training.
        """
        with torch.no_grad():
            outputs, _, changed = self.call(parameters, buffers, frozen, data)
        if changed:
            raise TraceError(
                f"the model changes its buffer {next(iter(changed))} in forward when it is not trained; "
                "change buffers only where self.training is true"
            )
        return outputs


def subject_of(
    model: nn.Module,
    *,
    input_count: int,
    loss: LossFunction,
    metrics: Sequence[PerExample],
    stepping: Stepping,
    local: Sequence[str] = (),
) -> Subject:
    """Sort the model's tensors; tied weights count once. All buffers count as frozen: `with_changing` moves some.

    Raises:
        TraceError: a pattern in `local` that names nothing or everything, a parameter that is not float32, nothing to
            train, or a buffer that float32 cannot hold.
    """
    trained = _local_last({name: p for name, p in model.named_parameters() if p.requires_grad}, local)
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    if not trained:
        raise TraceError(
            f"{type(model).__name__} has no parameter with requires_grad=True: there is nothing to train"
        )
    for name, parameter in (trained | frozen).items():
        if parameter.dtype != torch.float32:
            raise TraceError(
                f"parameter {name} is {parameter.dtype}, expected torch.float32; call model.float() first"
            )
    buffers = dict(model.named_buffers())
    for name, buffer in buffers.items():
        _check_buffer(name, buffer)
    return Subject(model, trained, {}, frozen | buffers, input_count, loss, metrics, stepping)


def is_local(name: str, patterns: Sequence[str]) -> bool:
    """Whether a parameter stays with the peer that trains it."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _local_last(trained: dict[str, Tensor], patterns: Sequence[str]) -> dict[str, Tensor]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in trained):
            raise TraceError(f"local={pattern!r} names no trained parameter; there are {', '.join(trained)}")
    shared = {name: p for name, p in trained.items() if not is_local(name, patterns)}
    if trained and not shared:
        raise TraceError(f"local={list(patterns)} names all {len(trained)} parameters: nothing is left to share")
    return shared | trained


def with_changing(subject: Subject, changed: Collection[str]) -> Subject:
    """The subject with those buffers travelling that forward was seen to change while training.

    Changed whole numbers, such as BatchNorm's count of batches, stay frozen: they have no mean over peers. That no
    result reads them is for the tracer to check.

    Raises:
        TraceError: forward changes a frozen parameter.
    """
    for name in dict(subject.model.named_parameters()):
        if name in changed:
            raise TraceError(f"the model changes its parameter {name} in forward; only the optimizer may")
    moving = {
        name: tensor for name, tensor in subject.frozen.items() if name in changed and tensor.dtype.is_floating_point
    }
    kept = {name: tensor for name, tensor in subject.frozen.items() if name not in moving}
    return replace(subject, buffers=moving, frozen=kept)


def _check_buffer(name: str, buffer: Tensor) -> None:
    whole = not buffer.dtype.is_floating_point
    if buffer.dtype.is_complex or buffer.dtype == torch.float64:
        raise TraceError(f"buffer {name} is {buffer.dtype}, expected float32 or whole numbers")
    if whole and buffer.numel() and int(buffer.to(torch.int64).abs().max()) > _EXACT:
        raise TraceError(f"buffer {name} holds whole numbers above {_EXACT}, which float32 cannot carry exactly")


def _summed(metric: PerExample, outputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
    values = metric.function(outputs, *targets)
    if not isinstance(values, torch.Tensor) or values.dim() != 1:
        shape = _shape(values) if isinstance(values, torch.Tensor) else type(values).__name__
        raise TraceError(f"metric {metric.name} gives {shape}, expected a tensor [batch]: one number per example")
    return values.to(torch.float32).sum()


def _shape(tensor: Tensor) -> str:
    return f"[{', '.join(str(dim) if isinstance(dim, int) else 'batch' for dim in tensor.shape)}]"
