"""What a node does with its own data in a round: evaluate, train, and make the update that will be masked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plans import BoundedExecutor, Metrics, Plan
from plans.large_models import give_memory_back, is_large
from plans.memory_limit import usual_limit_bytes
from protocol.round.jobs import LocalUpdate
from protocol.tail import Part, compose_tail
from protocol.terms import RunTerms
from python_node.datasets import Dataset

__all__ = ["LocalTrainer", "model_length", "shuffle_seed", "split_model"]

Model = NDArray[np.float32]
_STEPS_PER_CALL = 64
"""Steps between two looks at whether the round was called off."""


def model_length(plan: Plan) -> int:
    """Elements of what a round trains together: shared parameters and buffers."""
    return plan.manifest.shared_count + plan.manifest.buffer_count


def split_model(plan: Plan, model: Model, local: Model | None = None) -> tuple[Model, Model]:
    """Theta and buffers of a flat model without moments; local parameters are the plan's initial ones by default."""
    cut = plan.manifest.shared_count
    if not plan.manifest.local_count:
        return model[:cut], model[cut:]
    return np.concatenate([model[:cut], plan.initial("local") if local is None else local]), model[cut:]


def shuffle_seed(node_seed: bytes, round_id: str) -> bytes:
    """The seed of one round's order of examples: reproducible for who knows the node's seed, and nobody else."""
    return hashlib.sha256(b"peerplan/1/shuffle" + node_seed + bytes.fromhex(round_id)).digest()


class LocalTrainer:
    """Trains one plan on one dataset, in a process of its own. Calls block and are made in a thread, one at a time.

    Args:
        plan: validated.
        terms: of the run.
        dataset: the owner's data; nothing of it leaves this object but sums and an update.
        threads: processor cores for ONNX Runtime.
        node_seed: 32 secret bytes from which the order of examples is drawn.
        memory_limit: bytes that process may take; by default half of this machine's memory.

    Raises:
        PlanError: the process does not start, or the plan and its graphs are more than the limit.
    """

    def __init__(
        self,
        plan: Plan,
        terms: RunTerms,
        dataset: Dataset,
        *,
        threads: int,
        node_seed: bytes,
        memory_limit: int | None = None,
    ) -> None:
        self._plan = plan.without_start()
        self._terms = terms
        self._dataset = dataset
        self._node_seed = node_seed
        if is_large(plan.manifest):
            give_memory_back()
        self._executor = BoundedExecutor(
            self._plan, threads=threads, memory_limit=usual_limit_bytes() if memory_limit is None else memory_limit
        )
        self.local: Model = plan.initial("local")
        """This peer's own parameters (spec 05 §2), which nobody else ever sees."""
        self._trained = self.local

    def take_up(self, local: Model) -> None:
        """Go on with local parameters kept from before, where they fit."""
        if len(local) == len(self.local):
            self.local = self._trained = local

    def adopt(self) -> None:
        """A round went by: the local parameters last trained are this peer's from now on."""
        self.local = self._trained

    @property
    def process_id(self) -> int | None:
        """The system's number of the process, while there is one."""
        return self._executor.process_id

    def close(self) -> None:
        """End the process, and a call under way with `CancelledError`."""
        self._executor.close()

    def update(self, checkpoint: Model, round_id: str, *, cancelled: Callable[[], bool]) -> LocalUpdate:
        """Train from a checkpoint (float32 [P + B]) and give the difference with its weight and metrics.

        Raises:
            PlanError: the data does not fit, ONNX Runtime failed, or the round was called off.
        """
        trained, training = self.train(checkpoint, round_id, cancelled=cancelled)
        theta, buffers = split_model(self._plan, checkpoint, self.local)
        held_out = None
        if self._terms.evaluate and self._dataset.holdout is not None:
            found = self._executor.evaluate(
                theta, buffers, self._dataset.holdout, keep_data=True, cancelled=cancelled
            )
            held_out = _part(found)
        fraction, tail = compose_tail(self._plan.manifest, self._terms, training, held_out)
        held_out_weight = (len(self._plan.manifest.metrics),) if self._terms.evaluate else ()
        np.subtract(trained, checkpoint, out=trained)
        return LocalUpdate(values=trained, weight_fraction=fraction, tail=tail, weights_at=held_out_weight)

    def train(
        self, checkpoint: Model, round_id: str, *, cancelled: Callable[[], bool] = lambda: False
    ) -> tuple[Model, Part]:
        """The model after this round's local epochs, and the metrics on the way, per distinct example.

        The local parameters that go with it wait for `adopt`.
        """
        theta, buffers = split_model(self._plan, checkpoint, self.local)
        seed = shuffle_seed(self._node_seed, round_id)
        data = self._round_data(seed)
        local = self._terms.local
        result = self._executor.train(
            theta,
            buffers,
            data,
            batch_size=local.batch_size,
            epochs=local.epochs,
            learning_rate=local.learning_rate,
            seed=seed,
            steps_per_call=_STEPS_PER_CALL,
            keep_data=data is self._dataset.arrays,
            cancelled=cancelled,
        )
        part = _part(result.metrics, examples=len(next(iter(data.values()))))
        shared, local_values = np.split(result.theta, [self._plan.manifest.shared_count])
        self._trained = local_values.copy()  # a view would keep the whole vector in memory
        return np.concatenate([shared, result.buffers]) if len(result.buffers) else shared, part

    def _round_data(self, seed: bytes) -> Mapping[str, NDArray[Any]]:
        most = self._terms.local.max_examples
        if self._dataset.examples <= most:
            return self._dataset.arrays
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([*seed, 1])))
        rows = np.sort(generator.choice(self._dataset.examples, most, replace=False))
        return {field.name: self._dataset.arrays[field.name][rows] for field in self._plan.manifest.data_fields}


def _part(metrics: Metrics, *, examples: int | None = None) -> Part:
    means = {name: metrics.mean(name) for name in metrics.sums}
    return Part(examples=metrics.examples if examples is None else examples, means=means)
