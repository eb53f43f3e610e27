"""The demo's data: scikit-learn's handwritten digits, cut into shards that do not look alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Digits", "load_digits", "write_shards"]

Arrays = dict[str, NDArray[Any]]
HELD_OUT = 357
CONCENTRATION = 1.0
"""Of the Dirichlet distribution each peer's mix of digits is drawn from: at 1 most
peers lack some digits nearly, at 100 all are alike."""


@dataclass(frozen=True)
class Digits:
    """Shards of the peers and what none of them sees; fields `image` float32 [64] in 0..1 and `label` int64."""

    shards: tuple[Arrays, ...]
    held_out: Arrays


def load_digits(peers: int, seed: int) -> Digits:
    """1,797 images of 8x8 pixels (UCI's optical digits): 357 held out, the rest dealt to the peers in equal counts.

    Each peer draws from its own mix of the ten digits, so the shards are not alike (label skew).
    """
    from sklearn.datasets import load_digits as load  # noqa: PLC0415 (the extra `demo`)

    raw = load()
    images = (raw.data / 16).astype(np.float32)
    labels = raw.target.astype(np.int64)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    held_out, rest = order[:HELD_OUT], order[HELD_OUT:]
    pools = [list(rest[labels[rest] == digit]) for digit in range(10)]
    per_peer = len(rest) // peers
    shards = []
    for _ in range(peers):
        mix = generator.dirichlet(np.full(10, CONCENTRATION))
        rows = [_draw(pools, mix, generator) for _ in range(per_peer)]
        shards.append({"image": images[rows], "label": labels[rows]})
    return Digits(tuple(shards), {"image": images[held_out], "label": labels[held_out]})


def _draw(pools: list[list[int]], mix: NDArray[np.float64], generator: np.random.Generator) -> int:
    left = [digit for digit in range(10) if pools[digit]]
    weights = mix[left] / mix[left].sum()
    return int(pools[int(generator.choice(left, p=weights))].pop())


def write_shards(digits: Digits, folder: Path) -> list[Path]:
    """One .npz per peer, readable by its owner alone."""
    paths = []
    for index, shard in enumerate(digits.shards):
        path = folder / f"shard-{index}.npz"
        path.touch(mode=0o600)
        np.savez(path, **shard)  # type: ignore[arg-type]  # numpy's stub mistakes the arrays for its options
        paths.append(path)
    return paths
