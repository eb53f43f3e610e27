"""What a run of a plan will cost each peer, worked out before it is published: bytes, memory, time, room in the ring.

Sizes follow from the manifest and the run's terms. Time and memory are measured on this machine, with random data.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from plans.card import card
from plans.errors import BundleError
from plans.execute import Executor
from plans.operators import WEB
from protocol.server_optimizer import moment_count

if TYPE_CHECKING:
    from plans.bundle import Plan
    from protocol.manifest import DataField
    from protocol.terms import RunTerms

__all__ = ["Preflight", "StepCost", "measure_step", "preflight"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class StepCost:
    """One training step here: median and largest seconds over `steps` steps of `batch_size` examples, one thread."""

    median_s: float
    longest_s: float
    steps: int
    batch_size: int


@dataclass(frozen=True)
class Preflight:
    """What one peer pays for one round, and what an author should know before publishing.

    `vector_length` counts what is masked and summed: parameters, buffers and the tail of metrics. `bytes_up` and
    `bytes_down` are those of masked chunks and sums when all of `cohort_size` peers take part; the messages around
    them (keys, shares, votes) come on top. `fetch_bytes` is the plan itself, once.
    `memory_bytes` is the least a node holds while it trains: vectors, their masked copy and the graph, without
    activations. `ring_margin` is how many times the largest possible sum fits into the ring: at least 1.
    `operators` counts the operators of all functions; `missing_on_web` names those that onnxruntime-web's wasm build
    lacks. Its WebGPU part has fewer, and what that lacks runs on the processor.
    """

    parameter_count: int
    buffer_count: int
    frozen_count: int
    vector_length: int
    fetch_bytes: int
    bytes_up: int
    bytes_down: int
    memory_bytes: int
    ring_margin: float
    operators: dict[str, int]
    missing_on_web: tuple[str, ...]
    step: StepCost | None
    warnings: tuple[str, ...]


def preflight(plan: Plan, terms: RunTerms, *, measure: bool = True) -> Preflight:
    """Work out what a run of `plan` on `terms` costs; `measure` trains a few steps on random data.

    Raises:
        BundleError: the plan has no train function, or the terms are of another plan.
        ExecutionError: a step failed.
    """
    manifest = plan.manifest
    if "train" not in manifest.functions:
        raise BundleError(f"plan {manifest.name} has no train function; there is nothing to run in rounds")
    if terms.plan != plan.digest:
        raise BundleError(f"terms {terms.name} are of plan {terms.plan[:12]}, this one is {plan.digest[:12]}")
    tail = (1 + len(manifest.metrics)) * (2 if terms.evaluate else 1)
    length = manifest.shared_count + manifest.buffer_count + tail
    masked = math.ceil(length / 8) * terms.ring_bits
    # reduce-scatter: every chunk but one's own goes to its owner, then every owner sends its sum to all (spec 07)
    others = (terms.cohort_size - 1) / terms.cohort_size
    moved = math.ceil(masked * others * (1 + terms.replicas))
    moments = 2 * moment_count(terms.server_optimizer, manifest.shared_count)
    vectors = 4 * (2 * length + moments + 2 * manifest.local_count + manifest.optimizer_count + manifest.frozen_count)
    largest = terms.cohort_size * ((1 << (terms.value_bits - 1)) - 1)
    graph_bytes = len(plan.graph("train"))
    step = measure_step(plan, batch_size=terms.local.batch_size) if measure else None
    operators = _operators(plan)
    return Preflight(
        parameter_count=manifest.parameter_count,
        buffer_count=manifest.buffer_count,
        frozen_count=manifest.frozen_count,
        vector_length=length,
        fetch_bytes=card(plan).bundle_bytes,
        bytes_up=moved,
        bytes_down=moved,
        memory_bytes=vectors + masked + graph_bytes,
        ring_margin=(1 << (terms.ring_bits - 1)) / largest,
        operators=operators,
        missing_on_web=tuple(sorted(set(operators) - WEB)),
        step=step,
        warnings=tuple(_warnings(plan, terms, largest, step)),
    )


def measure_step(plan: Plan, *, batch_size: int, steps: int = 5) -> StepCost:
    """Train `steps` steps on random data, each in a call of its own, after one to warm up.

    Raises:
        ExecutionError: ONNX Runtime failed.
    """
    executor = Executor(plan)
    generator = np.random.Generator(np.random.Philox(0))
    data = {field.name: _random(generator, field, batch_size) for field in plan.manifest.data_fields}
    state = [plan.initial(role) for role in ("theta", "optimizer_state", "buffers")]
    rows, rates = np.arange(batch_size)[None, :], np.full(1, 1e-6, np.float32)
    executor.call_train(state, data, rows, rates, 0)
    seconds = []
    for number in range(steps):
        began = time.perf_counter()
        executor.call_train(state, data, rows, rates, number)
        seconds.append(time.perf_counter() - began)
    return StepCost(statistics.median(seconds), max(seconds), steps, batch_size)


def _random(generator: np.random.Generator, field: DataField, count: int) -> Array:
    shape = (count, *(1 if size == -1 else size for size in field.shape))
    if field.dtype.startswith("float"):
        return generator.standard_normal(shape).astype(field.dtype)
    return generator.integers(0, field.below or 2, shape).astype(field.dtype)


def _operators(plan: Plan) -> dict[str, int]:
    used: Counter[str] = Counter()
    for function in card(plan).functions:
        used.update(function.operators)
    return dict(used.most_common())


def _warnings(plan: Plan, terms: RunTerms, largest: int, step: StepCost | None) -> list[str]:
    found = []
    if largest >= 1 << (terms.ring_bits - 1):
        found.append(
            f"{terms.cohort_size} values of {terms.value_bits} bits sum up to {largest}, "
            f"a ring of {terms.ring_bits} bits holds {(1 << (terms.ring_bits - 1)) - 1}"
        )
    if plan.manifest.buffer_count:
        found.append(
            f"{plan.manifest.buffer_count} buffers (running statistics) are averaged beside the parameters, and what "
            f"a round changes of each is cut to {terms.clip:g} as well: choose the clip with them in mind"
        )
    if step is not None:
        steps = terms.local.epochs * math.ceil(terms.local.max_examples / terms.local.batch_size)
        needed = steps * step.median_s * 1000
        if needed > terms.deadlines.train_ms:
            found.append(
                f"{steps} steps of {step.median_s * 1000:.3g} ms take {needed:.0f} ms on this machine, "
                f"the deadline is {terms.deadlines.train_ms} ms"
            )
    return found
