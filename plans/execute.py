"""Run a plan's functions with ONNX Runtime: whole stretches of training, evaluation and prediction.

The calls block; a program with an event loop makes them in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from plans.checking import check_examples
from plans.errors import CancelledError, ExecutionError, UnusableDataError
from plans.onnx_runtime import onnxruntime
from plans.watchdog import Watchdog

if TYPE_CHECKING:
    from plans.bundle import Plan

__all__ = ["CALL_LIMIT_S", "Executor", "Metrics", "Progress", "TrainResult"]

Array = np.ndarray[Any, Any]
Vector = np.ndarray[Any, np.dtype[np.float32]]

_EVALUATE_BATCH = 256
_EVALUATE_ROWS = 64
CALL_LIMIT_S = 600.0
"""Seconds of one call of ONNX Runtime, where nothing else is said."""


@dataclass(frozen=True)
class Metrics:
    """Sums over examples, by name in the manifest's order; the first is the loss."""

    examples: int
    sums: Mapping[str, float]

    def mean(self, name: str) -> float:
        """A sum divided by the number of examples."""
        return self.sums[name] / self.examples


@dataclass(frozen=True)
class Progress:
    """Steps done of those planned, and the metrics so far."""

    steps_done: int
    steps_total: int
    metrics: Metrics


@dataclass(frozen=True)
class TrainResult:
    """Vectors after training, and metrics over every example seen (an example counts once per epoch)."""

    theta: Vector
    optimizer_state: Vector
    buffers: Vector
    metrics: Metrics


class Executor:
    """Sessions of one plan, made when first needed and kept. Not for use by two threads at a time.

    `threads` bounds the processor cores one call uses. `keep_memory` lets ONNX Runtime plan a call's memory ahead and
    keep it between calls: faster, at the price of holding more than the largest call needs. Without it a call trains
    one step, as what goes from step to step is in memory more often within a call than between calls. `call_limit_s`
    bounds the seconds of one call of ONNX Runtime (a stretch of `steps_per_call` steps, 64 batches of an evaluation,
    the loading of a graph): a plan that loops without end is stopped.
    """

    def __init__(
        self, plan: Plan, *, threads: int = 1, keep_memory: bool = True, call_limit_s: float = CALL_LIMIT_S
    ) -> None:
        if not 0 < call_limit_s < np.inf:
            raise UnusableDataError(f"call_limit_s is {call_limit_s}, expected a finite number of seconds above 0")
        self._plan = plan
        self._call_limit_s = call_limit_s
        self._frozen = {"frozen": plan.initial("frozen", copy=False)} if plan.manifest.frozen_count else {}
        self._sessions: dict[str, Any] = {}
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        self._options.enable_cpu_mem_arena = self._options.enable_mem_pattern = keep_memory
        self._most_steps = None if keep_memory else 1
        self._options.log_severity_level = 3
        self._names = [metric.name for metric in plan.manifest.metrics]
        self._sizes = {
            "theta": plan.manifest.parameter_count,
            "optimizer_state": plan.manifest.optimizer_count,
            "buffers": plan.manifest.buffer_count,
        }

    def train(
        self,
        theta: Vector,
        optimizer_state: Vector,
        buffers: Vector,
        data: Mapping[str, Array],
        *,
        batch_size: int,
        epochs: int,
        learning_rate: float | Callable[[int], float],
        seed: bytes,
        steps_per_call: int = 256,
        progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> TrainResult:
        """Train for whole epochs over `data` in an order drawn from `seed`; the last batch of an epoch may be short.

        `theta` float32 [P], `optimizer_state` float32 [Q], `buffers` float32 [B], `data` by field name [N, ...].
        `learning_rate` is one number, or a function that gives one for each step counted from 0.
        `steps_per_call` bounds how long `progress` waits. `cancelled` is asked between calls, and from another thread
        during them. `seed` is 1 to 64 bytes.

        Raises:
            UnusableDataError: data or vectors that do not fit the plan.
            CancelledError: `cancelled()` became true.
            ExecutionError: ONNX Runtime failed, a call took longer than `call_limit_s`, or training diverged.
        """
        examples = check_examples(self._plan.manifest, data, self._plan.manifest.data_fields)
        _check_counts(batch_size=batch_size, epochs=epochs, steps_per_call=steps_per_call)
        state = [
            self._vector("theta", theta),
            self._vector("optimizer_state", optimizer_state),
            self._vector("buffers", buffers),
        ]
        del theta, optimizer_state, buffers  # where the caller holds them no more, the first call's results take over
        total = epochs * -(-examples // batch_size)
        metrics, done = self._nothing(), 0
        steps_per_call = self._most_steps or steps_per_call
        for number, rows in enumerate(_stretches(examples, batch_size, epochs, steps_per_call, seed)):
            if cancelled is not None and cancelled():
                raise CancelledError(f"training stopped after {done} of {total} steps")
            rates = _rates(learning_rate, done, len(rows))
            call_seed = np.array(_call_seed(seed, number), np.int64)
            *state, table = self._run("train", state, data, rows, rates, call_seed, cancelled=cancelled)
            done += len(rows)
            if not all(map(_all_finite, (table, *state))):
                raise ExecutionError(
                    f"plan {self._plan.manifest.name}: training diverged within {done} of {total} steps: the loss, a "
                    f"metric or a vector holds NaN or infinity; a learning rate of {rates.max():g} may be high"
                )
            metrics = self._added(metrics, table)
            if progress is not None:
                progress(Progress(done, total, metrics))
        return TrainResult(state[0], state[1], state[2], metrics)

    def evaluate(
        self,
        theta: Vector,
        buffers: Vector,
        data: Mapping[str, Array],
        *,
        batch_size: int = _EVALUATE_BATCH,
        cancelled: Callable[[], bool] | None = None,
    ) -> Metrics:
        """Metrics over all examples of `data`. `cancelled` is asked as in `train`.

        Raises:
            UnusableDataError: data or vectors that do not fit the plan.
            CancelledError: `cancelled()` became true.
            ExecutionError: ONNX Runtime failed, or a call took longer than `call_limit_s`.
        """
        examples = check_examples(self._plan.manifest, data, self._plan.manifest.data_fields)
        state = [self._vector("theta", theta), self._vector("buffers", buffers)]
        metrics = self._nothing()
        rows = _rows(np.arange(examples), batch_size)
        for start in range(0, len(rows), _EVALUATE_ROWS):
            if cancelled is not None and cancelled():
                raise CancelledError(f"evaluation stopped after {start} of {len(rows)} batches")
            (table,) = self._run("evaluate", state, data, rows[start : start + _EVALUATE_ROWS], cancelled=cancelled)
            metrics = self._added(metrics, table)
        return metrics

    def predict(
        self, theta: Vector, buffers: Vector, inputs: Mapping[str, Array], *, batch_size: int = _EVALUATE_BATCH
    ) -> Array:
        """Outputs for all examples of `inputs`, [N, ...].

        Raises:
            UnusableDataError: inputs or vectors that do not fit the plan.
            ExecutionError: ONNX Runtime failed.
        """
        fields = self._plan.manifest.inputs
        examples = check_examples(self._plan.manifest, inputs, fields)
        feeds = {"theta": self._vector("theta", theta), "buffers": self._vector("buffers", buffers)}
        parts = []
        for start in range(0, examples, batch_size):
            batch = {field.name: inputs[field.name][start : start + batch_size] for field in fields}
            parts.append(self._call("predict", feeds | self._frozen | batch)[0])
        return np.concatenate(parts)

    def call_train(
        self, state: list[Vector], data: Mapping[str, Array], batches: Array, learning_rates: Array, seed: int
    ) -> list[Array]:
        """One call of `train` as its ports are (spec 05 §4): `state` is theta, optimizer_state and buffers.

        Raises:
            ExecutionError: ONNX Runtime failed.
        """
        return self._run("train", state, data, batches, learning_rates, np.array(seed, np.int64))

    def _run(
        self,
        kind: str,
        state: list[Vector],
        data: Mapping[str, Array],
        *rest: Array,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[Array]:
        """Feed a function in the order of its ports."""
        fields = [data[field.name] for field in self._plan.manifest.data_fields]
        values = [*state, *self._frozen.values(), *fields, *rest]
        ports = self._plan.manifest.functions[kind].inputs  # type: ignore[index]
        feeds = {port.name: value for port, value in zip(ports, values, strict=True)}
        return self._call(kind, feeds, cancelled=cancelled)

    def _call(
        self, kind: str, feeds: Mapping[str, Array], *, cancelled: Callable[[], bool] | None = None
    ) -> list[Array]:
        session = self._session(kind, cancelled)
        run = onnxruntime.RunOptions()
        given = {name: np.asarray(value, order="C") for name, value in feeds.items()}
        return list(
            self._watched(
                kind, lambda: session.run(None, given, run), partial(setattr, run, "terminate", True), cancelled
            )
        )

    def _session(self, kind: str, cancelled: Callable[[], bool] | None) -> Any:
        if kind not in self._sessions:
            graph, flag = self._plan.graph(kind), self._options.set_load_cancellation_flag
            flag(False)
            self._sessions[kind] = self._watched(
                kind,
                lambda: onnxruntime.InferenceSession(graph, self._options, providers=["CPUExecutionProvider"]),
                lambda: flag(True),
                cancelled,
            )
        return self._sessions[kind]

    def _watched(
        self, kind: str, call: Callable[[], Any], end: Callable[[], None], cancelled: Callable[[], bool] | None
    ) -> Any:
        """One call of ONNX Runtime, ended when it takes too long or nobody wants it any more."""
        what = f"plan {self._plan.manifest.name}, {kind}"
        try:
            with Watchdog(end, limit_s=self._call_limit_s, cancelled=cancelled) as watchdog:
                return call()
        except Exception as error:
            if watchdog.reason == "cancelled":
                raise CancelledError(f"{what}: stopped on the way") from error
            if watchdog.reason == "time":
                raise ExecutionError(f"{what}: took longer than {self._call_limit_s:g} s and was stopped") from error
            raise ExecutionError(f"{what}: {error}") from error

    def _vector(self, role: str, value: Vector) -> Vector:
        expected = self._sizes[role]
        if value.dtype != np.float32 or value.shape != (expected,):
            raise UnusableDataError(
                f"plan {self._plan.manifest.name}: {role} is {value.dtype}{list(value.shape)}, "
                f"expected float32[{expected}]"
            )
        if not _all_finite(value):
            bad = int(np.count_nonzero(~np.isfinite(value)))
            raise UnusableDataError(
                f"plan {self._plan.manifest.name}: {role} holds {bad} values that are NaN or infinite"
            )
        return value

    def _nothing(self) -> Metrics:
        return Metrics(0, dict.fromkeys(self._names, 0.0))

    def _added(self, metrics: Metrics, table: Array) -> Metrics:
        """Sums in float64, so that a long training loses no count."""
        columns = table.astype(np.float64).sum(axis=0)
        sums = {
            name: metrics.sums[name] + float(column) for name, column in zip(self._names, columns[1:], strict=True)
        }
        return Metrics(metrics.examples + round(columns[0]), sums)


def _stretches(examples: int, batch_size: int, epochs: int, steps_per_call: int, seed: bytes) -> Iterator[Array]:
    """Rows of example indexes for each call, epoch after epoch, each epoch in an order of its own."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(list(seed))))
    for _ in range(epochs):
        rows = _rows(generator.permutation(examples), batch_size)
        for start in range(0, len(rows), steps_per_call):
            yield rows[start : start + steps_per_call]


def _rows(order: Array, batch_size: int) -> Array:
    """Indexes as int64 [steps, batch]; -1 fills the last row."""
    steps = -(-len(order) // batch_size)
    width = min(batch_size, len(order))
    rows = np.full(steps * width, -1, np.int64)
    rows[: len(order)] = order
    return rows.reshape(steps, width)


def _rates(learning_rate: float | Callable[[int], float], done: int, steps: int) -> Array:
    """The learning rate of each of the next steps, float32 [steps]."""
    if callable(learning_rate):
        rates = np.array([learning_rate(done + step) for step in range(steps)], np.float32)
    else:
        rates = np.full(steps, learning_rate, np.float32)
    if not (np.isfinite(rates).all() and (rates >= 0).all() and (callable(learning_rate) or learning_rate > 0)):
        raise UnusableDataError(f"learning_rate is {learning_rate}, expected finite numbers above 0")
    return rates


def _call_seed(seed: bytes, number: int) -> int:
    """The graph's own seed for one call: 63 bits from the training's seed and the call's number."""
    return int(np.random.SeedSequence([*seed, number]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _all_finite(values: Array) -> bool:
    """Whether no number is NaN or infinite, without a bool for each in memory: either would be least or greatest."""
    return not values.size or bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise UnusableDataError(f"{name} is {count}, expected at least 1")
