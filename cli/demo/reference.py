"""What only the demo can do, because it made the shards: compare the run with what nobody else could compute."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cli.demo.shards import Shards
from cli.demo.tasks import Task
from plans import Executor, Plan
from protocol.signaling import LogEntry
from protocol.terms import RunTerms
from python_node.datasets import Dataset
from python_node.training import LocalTrainer

__all__ = ["Comparison", "aggregate_error", "compare", "mean_scores", "own_scores", "scores", "training_seed_bytes"]

Model = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Comparison:
    """Held-out scores, by name, of the same budget spent otherwise."""

    central: dict[str, float]
    best_single_peer: dict[str, float]


def training_seed_bytes(text: str) -> bytes:
    """What `peerplan node --training-seed TEXT` makes of its text."""
    return hashlib.sha256(text.encode()).digest()


def scores(executor: Executor, task: Task, theta: Model, buffers: Model, held_out: Arrays) -> dict[str, float]:
    """A model's scores on what is held out."""
    metrics = executor.evaluate(theta, buffers, dict(held_out))
    means = {name: metrics.mean(name) for name in metrics.sums}
    return {score.name: score.of(means, dict(held_out)) for score in task.scores}


def mean_scores(task: Task, found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each score."""
    return {score.name: float(np.mean([part[score.name] for part in found])) for score in task.scores}


def own_scores(
    plan: Plan, task: Task, models: Mapping[int, Model], own: Sequence[Arrays]
) -> dict[int, dict[str, float]]:
    """Scores of each peer's own model, theta with its own end and then buffers, on what is held out of its kind."""
    executor, cut = Executor(plan), plan.manifest.parameter_count
    return {peer: scores(executor, task, model[:cut], model[cut:], own[peer]) for peer, model in models.items()}


def compare(plan: Plan, task: Task, terms: RunTerms, data: Shards, *, seed: int) -> Comparison:
    """Train on all shards together, and on each alone, with the run's epochs in all, batches and learning rate.

    Where peers have heads of their own, the one model of all data is judged by the mean over what each holds out.
    """
    executor = Executor(plan)
    pooled = {name: np.concatenate([shard[name] for shard in data.shards]) for name in data.shards[0]}

    def train(shard: Arrays, held_out: Sequence[Arrays]) -> dict[str, float]:
        result = executor.train(
            plan.initial("theta"),
            plan.initial("optimizer_state"),
            plan.initial("buffers"),
            dict(shard),
            batch_size=terms.local.batch_size,
            epochs=terms.local.epochs * terms.rounds,
            learning_rate=terms.local.learning_rate,
            seed=f"reference {seed}".encode(),
        )
        return mean_scores(task, [scores(executor, task, result.theta, result.buffers, part) for part in held_out])

    own = data.own or (data.held_out,) * len(data.shards)
    singles = [train(shard, [part]) for shard, part in zip(data.shards, own, strict=True)]
    best = {score.name: score.best([single[score.name] for single in singles]) for score in task.scores}
    return Comparison(central=train(pooled, data.own or [data.held_out]), best_single_peer=best)


def aggregate_error(
    plan: Plan,
    terms: RunTerms,
    shards: Mapping[str, tuple[Arrays, str]],
    models: Mapping[int, Model],
    entries: Sequence[LogEntry],
) -> float:
    """Largest difference between a revealed mean update and the plain float mean of the same peers' updates.

    `shards` maps a peer to its data and training seed; training is repeated here, which is possible because the
    demo fixed the seeds. Rounds whose models are not both in `models` are left out.
    """
    with ExitStack() as stack:
        trainers = {
            peer: stack.enter_context(
                closing(
                    LocalTrainer(
                        plan,
                        terms,
                        Dataset(name="demo", arrays=dict(data)),
                        threads=1,
                        node_seed=training_seed_bytes(seed),
                    )
                )
            )
            for peer, (data, seed) in shards.items()
        }
        return max((_round_error(entry, trainers, models) for entry in entries), default=0.0)


def _round_error(entry: LogEntry, trainers: Mapping[str, LocalTrainer], models: Mapping[int, Model]) -> float:
    if entry.round not in models or entry.round - 1 not in models:
        return 0.0
    checkpoint = models[entry.round - 1]
    total, weight = np.zeros(len(checkpoint)), 0
    for index in entry.survivors:
        trainer = trainers[entry.cohort[index]]
        trained, part = trainer.train(checkpoint, entry.round_id)
        trainer.adopt()
        total += (trained.astype(np.float64) - checkpoint) * part.examples
        weight += part.examples
    revealed = models[entry.round].astype(np.float64) - checkpoint
    return float(np.abs(revealed - total / weight).max())
