"""What the demo can show: the worked examples, each with its data, its training and what is said of its models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from cli.demo.shards import Arrays, Shards, deal_by_label, deal_by_value, deal_pieces

if TYPE_CHECKING:
    from plans import Plan

__all__ = ["TASKS", "Score", "Task"]

HELD_OUT_DIGITS = 357
OWN_EXAMPLES = 60


@dataclass(frozen=True)
class Score:
    """A number that says how good a model is, from the means of the plan's metrics over what is held out."""

    name: str
    text: str
    of: Callable[[Mapping[str, float], Arrays], float]
    higher_is_better: bool = True

    def best(self, values: list[float]) -> float:
        """The best of several."""
        return max(values) if self.higher_is_better else min(values)


ACCURACY = Score("accuracy", "accuracy", lambda means, _held_out: means["accuracy"])
PERPLEXITY = Score(
    "perplexity", "perplexity", lambda means, _held_out: math.exp(means["loss"]), higher_is_better=False
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One worked example. `scores` are named in report.json; the first is drawn and shown round by round."""

    example: str
    title: str
    data: Callable[[int, int], Shards]
    """Shards for so many peers, from a seed."""
    scores: tuple[Score, ...]
    learning_rate: float
    batch_size: int
    epochs: int
    clip: float
    local: tuple[str, ...] = ()
    """Names of parameters that each peer keeps: its own head on a common body."""

    def build_plan(self) -> Plan:
        """Trace the example's plan; needs torch."""
        build: Callable[..., Plan] = import_module(f"examples.{self.example}").build_plan
        return build(local=self.local) if self.local else build()


def _digits(peers: int, seed: int, *, shape: tuple[int, ...]) -> Shards:
    """1,797 images of 8x8 pixels (UCI's optical digits): 357 held out, the rest dealt by label in equal counts."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 (the extra `demo`)

    raw = load_digits()
    data: Arrays = {
        "image": (raw.data / 16).astype(np.float32).reshape(-1, *shape),
        "label": raw.target.astype(np.int64),
    }
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(raw.target))
    held_out, rest = order[:HELD_OUT_DIGITS], order[HELD_OUT_DIGITS:]
    shards = deal_by_label(data, rest, "label", peers, generator)
    return Shards(shards, {name: array[held_out] for name, array in data.items()})


def _own_names(peers: int, seed: int) -> Shards:
    """Sixty digits for each peer, who calls each by another name: no head fits two peers."""
    data = _digits(peers, seed, shape=(64,))
    every = np.random.default_rng([seed, 1]).permutation(len(data.shards[0]["label"]) * peers)
    pooled = {name: np.concatenate([shard[name] for shard in data.shards])[every] for name in data.held_out}

    def renamed(part: Arrays, peer: int) -> Arrays:
        return part | {"label": (part["label"] + peer) % 10}

    shards = deal_pieces({name: array[: OWN_EXAMPLES * peers] for name, array in pooled.items()}, peers)
    shards = tuple(renamed(shard, peer) for peer, shard in enumerate(shards))
    return Shards(shards, data.held_out, own=tuple(renamed(data.held_out, peer) for peer in range(peers)))


def _diabetes(peers: int, seed: int) -> Shards:
    """442 patients (Efron et al., 2004), every fifth held out, dealt by rising body mass index."""
    train, held_out = import_module("examples.diabetes").load()
    body_mass_index = train["measurements"][:, 2]
    return Shards(deal_by_value(train, body_mass_index, peers, np.random.default_rng(seed)), held_out)


def _text(peers: int, _seed: int, *, every: int) -> Shards:
    """Python's licence: each peer has chapters of its own, of which every so many-th window is used."""
    train, held_out = import_module("examples.next_character").load()
    return Shards(deal_pieces(train, peers, every=every), held_out)


def _explained(means: Mapping[str, float], held_out: Arrays) -> float:
    return 1.0 - means["loss"] / float(held_out["progression"].astype(np.float64).var())


def _error(means: Mapping[str, float], _held_out: Arrays) -> float:
    scale: float = import_module("examples.diabetes").SCALE
    return scale * math.sqrt(means["loss"])


TASKS: dict[str, Task] = {
    "digits": Task(
        example="digits",
        title="Handwritten digits",
        data=lambda peers, seed: _digits(peers, seed, shape=(64,)),
        scores=(ACCURACY,),
        learning_rate=0.2,
        batch_size=8,
        epochs=10,
        clip=2.0,
    ),
    "digits_personal": Task(
        example="digits",
        title="Handwritten digits, each peer with names of its own",
        data=_own_names,
        scores=(ACCURACY,),
        learning_rate=0.2,
        batch_size=8,
        epochs=10,
        clip=2.0,
        local=("2.*",),
    ),
    "digits_cnn": Task(
        example="digits_cnn",
        title="Handwritten digits, by convolutions",
        data=lambda peers, seed: _digits(peers, seed, shape=(1, 8, 8)),
        scores=(ACCURACY,),
        learning_rate=0.05,
        batch_size=16,
        epochs=2,
        clip=1.0,
    ),
    "diabetes": Task(
        example="diabetes",
        title="Progression of diabetes",
        data=_diabetes,
        scores=(
            Score("r2", "R²", _explained),
            Score("rmse", "error", _error, higher_is_better=False),
        ),
        learning_rate=0.01,
        batch_size=16,
        epochs=2,
        clip=2.0,
    ),
    "next_character": Task(
        example="next_character",
        title="The next character of a licence",
        data=lambda peers, seed: _text(peers, seed, every=6),
        scores=(PERPLEXITY, ACCURACY),
        learning_rate=0.005,
        batch_size=32,
        epochs=2,
        clip=0.5,
    ),
    "fine_tune": Task(
        example="fine_tune",
        title="The next character, by adapters on a frozen transformer",
        data=lambda peers, seed: _text(peers, seed, every=8),
        scores=(PERPLEXITY, ACCURACY),
        learning_rate=0.003,
        batch_size=32,
        epochs=2,
        clip=0.5,
    ),
}
