"""What only the demo can do, because it made the shards: compare the run with what nobody else could compute."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cli.demo.tasks import Task
from plans import Executor, Plan
from protocol.signaling import LogEntry
from protocol.terms import RunTerms
from python_node.datasets import Dataset
from python_node.training import LocalTrainer, split_model

__all__ = ["Comparison", "aggregate_error", "compare", "evaluate", "training_seed_bytes"]

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


def evaluate(executor: Executor, plan: Plan, task: Task, model: Model, held_out: Arrays) -> dict[str, float]:
    """A model's scores on what is held out."""
    theta, buffers = split_model(plan, model)
    metrics = executor.evaluate(theta, buffers, dict(held_out))
    means = {name: metrics.mean(name) for name in metrics.sums}
    return {score.name: score.of(means, dict(held_out)) for score in task.scores}


def compare(
    plan: Plan, task: Task, terms: RunTerms, shards: Sequence[Arrays], held_out: Arrays, *, seed: int
) -> Comparison:
    """Train on all shards together, and on each alone, with the run's epochs in all, batches and learning rate."""
    executor = Executor(plan)
    pooled = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}

    def train(data: Arrays) -> dict[str, float]:
        result = executor.train(
            plan.initial("theta"),
            plan.initial("optimizer_state"),
            plan.initial("buffers"),
            dict(data),
            batch_size=terms.local.batch_size,
            epochs=terms.local.epochs * terms.rounds,
            learning_rate=terms.local.learning_rate,
            seed=f"reference {seed}".encode(),
        )
        return evaluate(executor, plan, task, np.concatenate([result.theta, result.buffers]), held_out)

    singles = [train(shard) for shard in shards]
    best = {score.name: score.best([single[score.name] for single in singles]) for score in task.scores}
    return Comparison(central=train(pooled), best_single_peer=best)


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
    trainers = {
        peer: LocalTrainer(
            plan,
            terms,
            Dataset(name="demo", arrays=dict(data)),
            threads=1,
            node_seed=training_seed_bytes(seed),
        )
        for peer, (data, seed) in shards.items()
    }
    worst = 0.0
    for entry in entries:
        if entry.round not in models or entry.round - 1 not in models:
            continue
        checkpoint = models[entry.round - 1]
        total, weight = np.zeros(len(checkpoint)), 0
        for index in entry.survivors:
            trainer = trainers[entry.cohort[index]]
            trained, part = trainer.train(checkpoint, entry.round_id)
            trainer.adopt()
            total += (trained.astype(np.float64) - checkpoint) * part.examples
            weight += part.examples
        revealed = models[entry.round].astype(np.float64) - checkpoint
        worst = max(worst, float(np.abs(revealed - total / weight).max()))
    return worst
