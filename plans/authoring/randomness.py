"""The random numbers of a plan: which PyTorch calls draw them, and the same numbers in PyTorch.

Every place that draws is a *draw*, counted in the order the model calls them. Element i of draw d in step s is

    h(i) = ((c0 i + c1) i + c2) i + c3   modulo p = 2^31 - 1,

with four coefficients below p, made from (seed, s, d): a polynomial of degree 3 with random coefficients, so any four
elements of one draw are independent (Wegman and Carter, 1981). Coefficient k of draw d comes from a block of fixed
constants by nine rounds of x -> (x + word + constant)^5 mod p, words being the seed's low and high part and the step;
x^5 is a permutation modulo this p (the round function of MiMC; Albrecht et al., 2016). It decorrelates; it is no
cipher, and nothing secret hangs on it. All products stay below 2^62, so int64 arithmetic is exact in every runtime.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from plans.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COEFFICIENTS", "PRIME", "ROUNDS", "Draws", "coefficients", "hashed", "round_constants"]

PRIME = 2**31 - 1
COEFFICIENTS = 4
ROUNDS = 9
"""Three passes over the three words."""

aten = torch.ops.aten


def round_constants(draws: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Constants below p, int64 [ROUNDS, draws * COEFFICIENTS]: SHA-256 of the place, so that nobody chose them."""
    table = np.zeros((ROUNDS, draws * COEFFICIENTS), np.int64)
    for row in range(ROUNDS):
        for column in range(draws * COEFFICIENTS):
            digest = hashlib.sha256(f"peerplan/1/draw {column} {row}".encode()).digest()
            table[row, column] = int.from_bytes(digest[:8], "big") % PRIME
    return table


def coefficients(seed: int, steps: int, draws: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Coefficients of every draw of every step of one call, int64 [steps, draws * COEFFICIENTS]."""
    state = np.zeros((steps, draws * COEFFICIENTS), np.int64)
    words = [np.full((steps, 1), seed % PRIME), np.full((steps, 1), seed // PRIME % PRIME), np.arange(steps)[:, None]]
    for number, constants in enumerate(round_constants(draws)):
        state = (state + words[number % 3] + constants) % PRIME
        square = state * state % PRIME
        state = square * square % PRIME * state % PRIME
    return state


def hashed(four: Sequence[int], count: int) -> torch.Tensor:
    """Elements 0..count-1 of a draw, int64 [count], each below p."""
    index = torch.arange(count, dtype=torch.int64)
    value = torch.full((count,), int(four[0]), dtype=torch.int64)
    for coefficient in four[1:]:
        value = (value * index + int(coefficient)) % PRIME
    return value


class Draws(TorchDispatchMode):  # type: ignore[misc]  # torch is not seen by mypy
    """Within it, PyTorch draws what step `step` of a call with `seed` draws in the plan: for comparing both.

    `seed` is the int64 that the train function takes; `draws` how many places of the model draw numbers.
    """

    def __init__(self, seed: int, step: int, draws: int) -> None:
        super().__init__()
        rows = coefficients(seed, step + 1, draws)
        self._left = iter(rows[step].reshape(draws, COEFFICIENTS).tolist())

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drawn = _EAGER.get(function)
        if drawn is None:
            # attention's fused kernels are tagged as random for the dropout they may hold; `unfused` has none of them
            if torch.Tag.nondeterministic_seeded in function.tags and "scaled_dot_product" not in str(function):
                raise TraceError(f"{function} draws random numbers in a way that plans do not know")
            return function(*args, **(kwargs or {}))
        return drawn(next(self._left), *args, **(kwargs or {}))


def _uniform(four: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """0 <= u < 1 with 24 bits: what float32 holds exactly."""
    return (hashed(four, like.numel()) // 128).to(torch.float32).div(1 << 24).reshape(like.shape)


def _bernoulli(four: Sequence[int], like: torch.Tensor, p: float = 0.5, **_options: Any) -> torch.Tensor:
    return (hashed(four, like.numel()) < threshold(p)).to(like.dtype).reshape(like.shape)


def _bernoulli_in_place(four: Sequence[int], like: torch.Tensor, p: float = 0.5, **_options: Any) -> torch.Tensor:
    return like.copy_(_bernoulli(four, like, p))


def _rand(four: Sequence[int], size: Sequence[int], **_options: Any) -> torch.Tensor:
    return _uniform(four, torch.empty(tuple(size)))


def _rand_like(four: Sequence[int], like: torch.Tensor, **_options: Any) -> torch.Tensor:
    return _uniform(four, like)


def threshold(p: float) -> int:
    """An element below it stands for true, so that true has probability p, to 1 in 2^31."""
    return round(p * PRIME)


_EAGER: dict[Any, Any] = {
    aten.bernoulli.p: _bernoulli,
    aten.bernoulli_.float: _bernoulli_in_place,
    aten.rand.default: _rand,
    aten.rand_like.default: _rand_like,
}
