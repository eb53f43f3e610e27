"""Data in the shape of the digits plan: ten blurred prototypes and noise, so that a few rounds learn something."""

from __future__ import annotations

import numpy as np

from python_node.datasets import Dataset

EXAMPLES = 96


def examples(seed: int, count: int = EXAMPLES) -> dict[str, np.ndarray]:
    """`count` images (float32 [64], no zeros in them) and labels of one owner."""
    prototypes = np.random.default_rng(0).uniform(0.1, 0.9, (10, 64))
    random = np.random.default_rng(1000 + seed)
    label = random.integers(0, 10, count)
    image = prototypes[label] + random.normal(0, 0.15, (count, 64))
    return {"image": image.astype(np.float32), "label": label.astype(np.int64)}


def dataset(seed: int, *, name: str = "digits") -> Dataset:
    return Dataset(name=name, arrays=examples(seed))
