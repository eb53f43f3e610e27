"""Optimizers as values: what an author chooses. `plans.authoring.stepping` writes their arithmetic into the graph."""

from __future__ import annotations

from dataclasses import dataclass

from plans.errors import TraceError

__all__ = ["SGD", "Adam", "Optimizer", "RMSprop", "as_optimizer"]


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent as `torch.optim.SGD`; with `momentum` it keeps one vector of state."""

    lr: float = 0.01
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require(0 < self.lr <= 1e3, f"SGD: lr={self.lr}, expected 0 < lr <= 1000")
        _require(0 <= self.momentum < 1, f"SGD: momentum={self.momentum}, expected 0 <= momentum < 1")
        _require(0 <= self.dampening <= 1, f"SGD: dampening={self.dampening}, expected 0 <= dampening <= 1")
        _require(self.weight_decay >= 0, f"SGD: weight_decay={self.weight_decay}, expected at least 0")
        _require(
            not self.nesterov or (self.momentum > 0 and self.dampening == 0),
            "SGD: nesterov needs momentum above 0 and dampening 0",
        )


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam as `torch.optim.Adam`; with `decoupled` AdamW. Two vectors of state and a step count."""

    lr: float = 0.001
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False

    def __post_init__(self) -> None:
        _require(0 < self.lr <= 1e3, f"Adam: lr={self.lr}, expected 0 < lr <= 1000")
        _require(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            f"Adam: betas={self.betas}, expected two numbers in 0 <= beta < 1",
        )
        _require(self.eps > 0, f"Adam: eps={self.eps}, expected above 0")
        _require(self.weight_decay >= 0, f"Adam: weight_decay={self.weight_decay}, expected at least 0")


@dataclass(frozen=True, kw_only=True)
class RMSprop:
    """RMSprop as `torch.optim.RMSprop`; one vector of state, two with `momentum`."""

    lr: float = 0.01
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require(0 < self.lr <= 1e3, f"RMSprop: lr={self.lr}, expected 0 < lr <= 1000")
        _require(0 <= self.alpha < 1, f"RMSprop: alpha={self.alpha}, expected 0 <= alpha < 1")
        _require(self.eps > 0, f"RMSprop: eps={self.eps}, expected above 0")
        _require(0 <= self.momentum < 1, f"RMSprop: momentum={self.momentum}, expected 0 <= momentum < 1")
        _require(self.weight_decay >= 0, f"RMSprop: weight_decay={self.weight_decay}, expected at least 0")


Optimizer = SGD | Adam | RMSprop


def as_optimizer(given: Optimizer | str) -> Optimizer:
    """The optimizer itself, or the default one behind "sgd", "momentum", "adam", "adamw" or "rmsprop".

    Raises:
        TraceError: another word or type.
    """
    if isinstance(given, SGD | Adam | RMSprop):
        return given
    named: dict[str, Optimizer] = {
        "sgd": SGD(),
        "momentum": SGD(momentum=0.9),
        "adam": Adam(),
        "adamw": Adam(decoupled=True, weight_decay=0.01),
        "rmsprop": RMSprop(),
    }
    if isinstance(given, str) and given in named:
        return named[given]
    kind = given if isinstance(given, type) else type(given)
    shown = f"{kind.__module__}.{kind.__qualname__}" if kind.__module__.startswith("torch.optim") else repr(given)
    several = " (it asks for the loss several times a step)" if kind.__name__ == "LBFGS" or given == "lbfgs" else ""
    raise TraceError(
        f"optimizer {shown} is unknown{several}, expected plans.SGD, plans.Adam, plans.RMSprop or one of "
        f"{', '.join(named)}"
    )


def _require(holds: bool, message: str) -> None:  # noqa: FBT001 - a condition, not an option
    if not holds:
        raise TraceError(message)
