"""The server optimizer of a run (spec 07 §9): how every peer turns a round's mean update into the next model.

The name is the literature's (Reddi et al., "Adaptive Federated Optimization", ICLR 2021); no server applies it.
"""

from __future__ import annotations

import math
import struct
from typing import Annotated, Literal

import msgspec

from protocol.errors import TermsError

__all__ = ["FEDAVG", "Kind", "ServerOptimizer", "chosen_optimizer", "initial_moments", "moment_count"]

Kind = Literal["fedavg", "fedavgm", "fedadam", "fedyogi"]
_Beta = Annotated[float, msgspec.Meta(ge=0, lt=1)]

_USED: dict[str, tuple[str, ...]] = {
    "fedavg": ("learning_rate",),
    "fedavgm": ("learning_rate", "beta1"),
    "fedadam": ("learning_rate", "beta1", "beta2", "tau"),
    "fedyogi": ("learning_rate", "beta1", "beta2", "tau"),
}
_ADAPTIVE_RATE = 0.01
_MOMENTS: dict[str, int] = {"fedavg": 0, "fedavgm": 1, "fedadam": 2, "fedyogi": 2}


class ServerOptimizer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is done with the mean update of theta; buffers always take the mean as it is.

    With the mean update d, momentum m and second moment v of a parameter:

        fedavg    theta + learning_rate d
        fedavgm   m = beta1 m + d;  theta + learning_rate m
        fedadam   m = beta1 m + (1 - beta1) d;  v = beta2 v + (1 - beta2) d²;  theta + learning_rate m / (√v + tau)
        fedyogi   as fedadam, with v = v - (1 - beta2) d² sign(v - d²)

    There is no bias correction: v starts at tau², m at zero.
    """

    kind: Kind = "fedavg"
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=1e3)] = 1.0
    beta1: _Beta = 0.9
    beta2: _Beta = 0.99
    tau: Annotated[float, msgspec.Meta(ge=1e-9, le=1)] = 1e-3
    """Keeps a step finite where v is small: the smaller, the more alike the steps of all parameters."""


FEDAVG = ServerOptimizer()


def chosen_optimizer(kind: str, **numbers: float | None) -> ServerOptimizer:
    """A server optimizer of the numbers that are not None; fedadam and fedyogi learn at 0.01 by default.

    Raises:
        TermsError: an unknown kind, a number out of range, or one that this kind does not use.
    """
    said = {name: value for name, value in numbers.items() if value is not None}
    if kind not in _USED:
        raise TermsError(f"server optimizer {kind!r} is unknown; there are {', '.join(_USED)}")
    unused = sorted(set(said) - set(_USED[kind]))
    if unused:
        raise TermsError(f"server optimizer {kind} uses {', '.join(_USED[kind])}; got {', '.join(unused)} too")
    if "tau" in _USED[kind]:
        said.setdefault("learning_rate", _ADAPTIVE_RATE)
    if (wrong := next((name for name, value in said.items() if not math.isfinite(value)), None)) is not None:
        raise TermsError(f"server optimizer {kind}: {wrong} is {said[wrong]}, expected a finite number")
    try:
        return msgspec.convert({"kind": kind, **said}, ServerOptimizer)
    except msgspec.ValidationError as error:
        got = ", ".join(f"{name} {value:g}" for name, value in said.items())
        raise TermsError(f"server optimizer {kind}: {error}; got {got}") from None


def moment_count(optimizer: ServerOptimizer, parameter_count: int) -> int:
    """Elements of the moments that follow theta and buffers in a model."""
    return _MOMENTS[optimizer.kind] * parameter_count


def initial_moments(optimizer: ServerOptimizer) -> tuple[float, ...]:
    """What each moment's elements are before the first round: m zero, v binary32(tau * tau)."""
    (second,) = struct.unpack("<f", struct.pack("<f", optimizer.tau * optimizer.tau))
    return (0.0, second)[: _MOMENTS[optimizer.kind]]
