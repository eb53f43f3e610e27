"""One step of a server optimizer, in the order and rounding of spec 07 §9, so that every language gets the same bits.

Every operation is one of + - * / and the square root in binary64, each rounded by itself (numpy fuses none); m, v and
theta are rounded to binary32 once, where they are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from protocol.server_optimizer import ServerOptimizer

__all__ = ["Step", "step_of"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Step = Callable[[Float64, Sequence[Float32], Sequence[Float32]], None]
"""`step(change, old, new)`: from the mean update (binary64; overwritten with what is added to theta) and the moments
before it to the moments after it; all of one length."""


def step_of(optimizer: ServerOptimizer, tile: int) -> Step:
    """The step of an optimizer, with room for `tile` elements at a time."""
    rate, beta1, beta2, tau = optimizer.learning_rate, optimizer.beta1, optimizer.beta2, optimizer.tau
    first, second = 1.0 - beta1, 1.0 - beta2
    space, more = np.empty(tile, np.float64), np.empty(tile, np.float64)

    def fedavg(change: Float64, _old: Sequence[Float32], _new: Sequence[Float32]) -> None:
        if rate != 1.0:  # times one changes no bit
            np.multiply(change, rate, out=change)

    def fedavgm(change: Float64, old: Sequence[Float32], new: Sequence[Float32]) -> None:
        work = space[: len(change)]
        np.multiply(old[0], beta1, out=work, dtype=np.float64)
        np.add(work, change, out=new[0], dtype=np.float64, casting="same_kind")
        np.multiply(new[0], rate, out=change, dtype=np.float64)

    def momentum(change: Float64, old: Float32, new: Float32) -> None:
        work, other = space[: len(change)], more[: len(change)]
        np.multiply(old, beta1, out=work, dtype=np.float64)
        np.multiply(change, first, out=other)
        np.add(work, other, out=new, dtype=np.float64, casting="same_kind")

    def adapted(change: Float64, new: Sequence[Float32]) -> None:
        work = space[: len(change)]
        np.sqrt(new[1], out=work, dtype=np.float64)
        np.add(work, tau, out=work)
        np.multiply(new[0], rate, out=change, dtype=np.float64)
        np.divide(change, work, out=change)

    def fedadam(change: Float64, old: Sequence[Float32], new: Sequence[Float32]) -> None:
        momentum(change, old[0], new[0])
        work, square = space[: len(change)], more[: len(change)]
        np.multiply(change, change, out=square)
        np.multiply(square, second, out=square)
        np.multiply(old[1], beta2, out=work, dtype=np.float64)
        np.add(work, square, out=new[1], dtype=np.float64, casting="same_kind")
        adapted(change, new)

    def fedyogi(change: Float64, old: Sequence[Float32], new: Sequence[Float32]) -> None:
        momentum(change, old[0], new[0])
        work, square = space[: len(change)], more[: len(change)]
        np.multiply(change, change, out=square)
        np.subtract(old[1], square, out=work, dtype=np.float64)
        np.sign(work, out=work)
        np.multiply(square, second, out=square)
        np.multiply(square, work, out=square)
        np.subtract(old[1], square, out=new[1], dtype=np.float64, casting="same_kind")
        adapted(change, new)

    return {"fedavg": fedavg, "fedavgm": fedavgm, "fedadam": fedadam, "fedyogi": fedyogi}[optimizer.kind]
