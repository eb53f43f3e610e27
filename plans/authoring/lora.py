"""Fine-tuning by low-rank adapters: the base is frozen and part of the plan, only the adapters travel."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch

import torch
from torch import Tensor, nn
from torch.nn import functional

from plans.errors import TraceError

__all__ = ["Adapted", "lora"]


class Adapted(nn.Module):  # type: ignore[misc]  # torch is not seen by mypy
    """A frozen linear layer plus `scale * up(down(x))` of low rank (Hu et al., 2022).

    `down` [rank, inputs] starts at random, `up` [outputs, rank] at zero, so that training begins with the base model.
    """

    def __init__(self, base: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.empty(rank, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        self.scale = scale
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    @property
    def weight(self) -> Tensor:
        """The weight with its adapter: what layers see that reach past `forward`, such as PyTorch's fused encoder."""
        return self.base.weight + self.scale * (self.up @ self.down)

    @property
    def bias(self) -> Tensor | None:
        """The base's bias."""
        return self.base.bias

    def forward(self, value: Tensor) -> Tensor:
        """The base's output with the adapter's added."""
        added = functional.linear(functional.linear(value, self.down), self.up)
        output: Tensor = self.base(value) + self.scale * added
        return output


def lora(
    model: nn.Module, layers: Sequence[str], *, rank: int = 4, alpha: float = 8.0, train: Sequence[str] = ()
) -> nn.Module:
    """Freeze `model`, put adapters on the linear layers that `layers` names, and give the model back.

    Names are those of `model.named_modules()`, or patterns such as "*.attention.*.query". Parameters that `train`
    names in the same way, such as a new head "classifier.*", stay trainable. Adapters are scaled by alpha / rank.

    Raises:
        TraceError: a pattern that fits no linear layer or parameter, or a rank that is no smaller than a layer.
    """
    model.requires_grad_(requires_grad=False)
    for pattern in layers:
        for name in _fitting(model, pattern):
            base = model.get_submodule(name)
            assert isinstance(base, nn.Linear)
            if not 1 <= rank < min(base.in_features, base.out_features):
                raise TraceError(
                    f"lora: rank {rank} on {name}, a layer of {base.in_features} x {base.out_features}; "
                    f"expected 1 <= rank < {min(base.in_features, base.out_features)}"
                )
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, Adapted(base, rank, alpha / rank))
    for pattern in train:
        found = [parameter for name, parameter in model.named_parameters() if fnmatch(name, pattern)]
        if not found:
            names = [name for name, _ in model.named_parameters()]
            raise TraceError(f"lora: no parameter is named {pattern!r}; there are {_some(names)}")
        for parameter in found:
            parameter.requires_grad_(requires_grad=True)
    return model


def _fitting(model: nn.Module, pattern: str) -> list[str]:
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    found = [name for name in linear if fnmatch(name, pattern) and not name.endswith(".base")]
    if not found:
        raise TraceError(f"lora: no linear layer is named {pattern!r}; there are {_some(linear)}")
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
