"""A Keras 3 model on its torch backend as a PyTorch module whose tensors are named, so that it can be traced.

Keras variables hold their tensors themselves: replacing a module's parameters, as tracing does, would not reach them.
`stateless_call` takes their values as arguments and gives back those that forward changed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from plans.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["keras_loss", "torch_module"]


_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")
"""Keras's names for the mean; without sample weights they are the same."""

_SEED = "seed_generator_state"
"""The end of the path of a random generator's state, which plans have no use for: their draws come from the host."""


def torch_module(model: Any) -> nn.Module:
    """The model itself, or a module around a Keras model; it shares the model's tensors.

    Raises:
        TraceError: neither a PyTorch module nor a Keras model that is built and runs on torch.
    """
    if not _is(model, "Model"):
        if not isinstance(model, nn.Module):
            raise TraceError(f"model is {type(model).__name__}, expected torch.nn.Module or a Keras model on torch")
        return model
    backend = sys.modules["keras"].backend.backend()
    if backend != "torch":
        raise TraceError(
            f"Keras runs on {backend} here, expected torch: set KERAS_BACKEND=torch before keras is imported"
        )
    if not model.built:
        raise TraceError(
            f"Keras model {model.name} is not built, so its parameters have no shapes; begin it with keras.Input"
        )
    return _KerasModule(model)


def keras_loss(loss: Any) -> Callable[..., Tensor] | None:
    """A loss of Keras in the order that plans use, outputs before targets; None for anything else.

    Its values per example are averaged here: Keras divides by the batch size as a number, which would be fixed then.

    Raises:
        TraceError: a loss that is not the mean over the batch.
    """
    if not _is(loss, "Loss"):
        return None
    if loss.reduction not in _MEANS:
        raise TraceError(
            f"loss {loss.name} has reduction {loss.reduction!r}, expected {_MEANS[0]!r}: the mean over the batch"
        )
    return lambda outputs, target: loss.call(target, outputs).mean()


def _is(found: Any, name: str) -> bool:
    """Whether something is of a class of Keras, which is imported where its objects exist and nowhere else."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(found, getattr(keras, name))


class _KerasModule(nn.Module):  # type: ignore[misc]  # torch is not seen by mypy
    """Keras's variables as parameters and buffers under their paths."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        object.__setattr__(self, "_model", model)  # no submodule: its tensors would be counted twice
        self._trained = [name for variable in model.trainable_variables if (name := self._place(variable))]
        self._fixed = [self._place(variable) for variable in model.non_trainable_variables]

    def _place(self, variable: Any) -> str | None:
        name, value = str(variable.path).replace(".", "_"), variable.value
        if name.endswith(_SEED):
            return None
        if name in self._parameters or name in self._buffers:
            raise TraceError(f"two Keras variables are named {name}; give their layers different names")
        if variable.trainable:
            self.register_parameter(name, value)
        else:
            self.register_buffer(name, value.detach())
        return name

    def forward(self, *inputs: Tensor) -> Tensor:
        """As Keras, in training or not as the module is."""
        variables = self._model.non_trainable_variables
        given = [
            variable.value if name is None else getattr(self, name)
            for name, variable in zip(self._fixed, variables, strict=True)
        ]
        outputs, after = self._model.stateless_call(
            [getattr(self, name) for name in self._trained],
            given,
            inputs[0] if len(inputs) == 1 else list(inputs),
            training=self.training,
        )
        for name, before, value in zip(self._fixed, given, after, strict=True):
            if name is not None and value is not before:
                setattr(self, name, value)
        return outputs
