"""Operators that draw random numbers: integer arithmetic on the seed port, the same in every runtime.

The arithmetic is that of `plans.authoring.randomness`. Coefficients are made once per call, for all its steps
together, outside the Loop; a step reads its row of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from plans.authoring.lowering.registry import Lowering, Value, lowers
from plans.authoring.lowering.shapes import sizes_of
from plans.authoring.randomness import COEFFICIENTS, PRIME, ROUNDS, round_constants, threshold
from plans.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx

    from plans.authoring.lowering.graph import GraphBuilder

__all__ = ["KEYS", "coefficients_of_call", "count_draws", "draws_of_step"]

aten = torch.ops.aten

KEYS = "_keys"
"""The coefficients of all steps of a call, int64 [steps, draws * 4], read by the Loop's body."""

_DRAWING = frozenset({aten.bernoulli.p, aten.rand.default, aten.rand_like.default})


def count_draws(module: fx.GraphModule) -> int:
    """How many places of a traced module draw random numbers."""
    return sum(node.target in _DRAWING for node in module.graph.nodes)


def coefficients_of_call(graph: GraphBuilder, steps: str, draws: int) -> None:
    """Write the coefficients of every step of a call under the name `KEYS`; `steps` is int64 []."""
    constants = round_constants(draws)
    prime = graph.constant(PRIME, np.int64)
    last, one = graph.ints(-1, 1), graph.constant(1, np.int64)
    step = graph.op("Reshape", graph.op("Range", graph.constant(0, np.int64), steps, one), last)
    low = graph.op("Mod", "seed", prime)
    high = graph.op("Mod", graph.op("Div", "seed", prime), prime)
    words = [low, high, step]
    state = graph.op("Mul", step, graph.constant(np.zeros((1, draws * COEFFICIENTS), np.int64)))
    for number in range(ROUNDS):
        added = graph.op("Add", graph.op("Add", state, words[number % 3]), graph.constant(constants[number]))
        state = graph.op("Mod", added, prime)
        square = graph.op("Mod", graph.op("Mul", state, state), prime)
        fourth = graph.op("Mod", graph.op("Mul", square, square), prime)
        state = graph.op("Mod", graph.op("Mul", fourth, state), prime)
    graph.named("Identity", state, name=KEYS)


def draws_of_step(body: GraphBuilder, draws: int) -> Iterator[tuple[str, ...]]:
    """The four coefficients, int64 [1] each, of one draw after another of the running step."""
    row = body.op("Gather", KEYS, "_step", axis=0)
    parts = body.ops("Split", row, body.ints(*[1] * (draws * COEFFICIENTS)), outputs=draws * COEFFICIENTS, axis=0)
    return iter([parts[at : at + COEFFICIENTS] for at in range(0, len(parts), COEFFICIENTS)])


def _hashed(to: Lowering, sizes: str) -> str:
    """The next draw, int64 in the given shape."""
    if to.graph.draws is None:
        raise TraceError("the model draws random numbers in evaluate or predict; only training has a seed")
    first, *rest = next(to.graph.draws)
    count = to.op("ReduceProd", sizes, keepdims=0)
    zero, one = to.graph.constant(0, np.int64), to.graph.constant(1, np.int64)
    index = to.op("Range", zero, count, one)
    value = first
    for coefficient in rest:
        value = to.op("Add", to.op("Mul", value, index), coefficient)
        value = to.op("Mod", value, to.graph.constant(PRIME, np.int64))
    return to.op("Reshape", value, sizes)


def _uniform(to: Lowering, sizes: str) -> str:
    bits = to.op("Div", _hashed(to, sizes), to.graph.constant(128, np.int64))
    return to.op("Mul", to.op("Cast", bits, to=1), to.scalar(2.0**-24, torch.float32))


@lowers(aten.bernoulli.p)
def bernoulli(to: Lowering, value: Value, p: float = 0.5, **_options: object) -> str:
    """One with probability p, zero otherwise."""
    below = to.op("Less", _hashed(to, sizes_of(to, value)), to.graph.constant(threshold(p), np.int64))
    return to.cast(below, to.dtype, of=torch.bool)


@lowers(aten.rand_like.default)
def rand_like(to: Lowering, value: Value, **_options: object) -> str:
    """Uniform in 0 <= u < 1, in the shape of another tensor."""
    return _uniform(to, sizes_of(to, value))


@lowers(aten.rand.default)
def rand(to: Lowering, dims: Sequence[int | Value], **_options: object) -> str:
    """Uniform in 0 <= u < 1."""
    return _uniform(to, to.sizes(dims))
