"""The demo's data: shards that do not look alike, and what is held out from all peers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arrays", "Shards", "deal_by_label", "deal_by_value", "deal_pieces", "write_shards"]

Arrays = dict[str, NDArray[Any]]
CONCENTRATION = 1.0
"""Of the Dirichlet distribution each peer's mix of labels is drawn from: at 1 most
peers lack some labels nearly, at 100 all are alike."""
ALIKE = 0.5
"""How much of a value's spread is noise when examples are dealt in its order: at 0 peers share no range."""


@dataclass(frozen=True)
class Shards:
    """Shards of the peers and what none of them sees, by field of the plan.

    Where every peer has a head of its own, `own` is what is held out of each one's kind, in the peers' order.
    """

    shards: tuple[Arrays, ...]
    held_out: Arrays
    own: tuple[Arrays, ...] = ()


def deal_by_label(
    data: Arrays, rows: NDArray[np.int64], label: str, peers: int, generator: np.random.Generator
) -> tuple[Arrays, ...]:
    """Shards of equal counts of `rows`; each peer draws from its own mix of the labels 0 to 9 (label skew)."""
    labels = data[label]
    pools = [list(rows[labels[rows] == digit]) for digit in range(10)]
    shards = []
    for _ in range(peers):
        mix = generator.dirichlet(np.full(10, CONCENTRATION))
        drawn = [_draw(pools, mix, generator) for _ in range(len(rows) // peers)]
        shards.append({name: array[drawn] for name, array in data.items()})
    return tuple(shards)


def deal_by_value(
    data: Arrays, value: NDArray[np.float32], peers: int, generator: np.random.Generator
) -> tuple[Arrays, ...]:
    """Shards by rising value, with some noise: peers see other ranges of it (feature skew)."""
    order = np.argsort(value + ALIKE * value.std() * generator.standard_normal(len(value)), kind="stable")
    return tuple(
        {name: array[np.sort(part)] for name, array in data.items()} for part in np.array_split(order, peers)
    )


def deal_pieces(data: Arrays, peers: int, *, every: int = 1) -> tuple[Arrays, ...]:
    """Shards that follow each other, as the chapters of a text; of each every so many-th example."""
    pieces = np.array_split(np.arange(len(next(iter(data.values())))), peers)
    return tuple({name: array[piece[::every]] for name, array in data.items()} for piece in pieces)


def _draw(pools: list[list[int]], mix: NDArray[np.float64], generator: np.random.Generator) -> int:
    left = [digit for digit in range(10) if pools[digit]]
    weights = mix[left] / mix[left].sum()
    return int(pools[int(generator.choice(left, p=weights))].pop())


def write_shards(data: Shards, folder: Path) -> list[Path]:
    """One .npz per peer, readable by its owner alone."""
    paths = []
    for index, shard in enumerate(data.shards):
        path = folder / f"shard-{index}.npz"
        path.touch(mode=0o600)
        np.savez(path, **shard)  # type: ignore[arg-type]  # numpy's stub mistakes the arrays for its options
        paths.append(path)
    return paths
