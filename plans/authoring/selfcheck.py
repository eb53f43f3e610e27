"""Check a fresh plan against PyTorch: one step, one evaluation, one prediction, on the same numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from plans.authoring.capture import unfused
from plans.authoring.explaining import explained
from plans.authoring.randomness import Draws
from plans.checking import check_examples
from plans.errors import ExecutionError, TraceError, UnusableDataError
from plans.execute import Executor
from plans.large_models import giving_memory_back, is_large, put_aside

if TYPE_CHECKING:
    from plans.authoring.assembly import Layout
    from plans.authoring.subject import Subject
    from plans.bundle import Plan

__all__ = ["check_against_pytorch"]

Array = np.ndarray[Any, Any]

_EXAMPLES = 5
_SEED = 20_260_101
_TILE = 1 << 18
_TOLERANCE = 1e-3
"""Of |plan - PyTorch| / |PyTorch|, both of what moved. Rounding stays below 1e-5; a wrong operator does not."""


def check_against_pytorch(
    plan: Plan, subject: Subject, layout: Layout, *, draws: int, data: Mapping[str, Any] | None
) -> None:
    """Run the plan's functions and the PyTorch model on `data`, or on random examples, and compare all results.

    Optimizer state starts at random positive values instead of zero: Adam divides by it, and from zero it would make
    the rounding noise of a gradient that is zero as large as any step.

    Raises:
        TraceError: they differ, PyTorch or ONNX Runtime fails, or `data` does not fit; says by how much and where.
    """
    examples = _random(plan) if data is None else {name: np.asarray(value) for name, value in data.items()}
    what = "self-check with random data" if data is None else "self-check"
    generator = np.random.Generator(np.random.Philox(_SEED))
    state = generator.random(plan.manifest.optimizer_count, np.float32)
    state += 0.5
    try:
        count = check_examples(plan.manifest, examples, plan.manifest.data_fields)
        with giving_memory_back() if is_large(plan.manifest) else nullcontext():
            expected = _eager(subject, layout, examples, state, plan, draws)
            for name, found in _by_plan(plan, examples, state, count):
                _compare(what, name, found, expected.pop(name))
    except (UnusableDataError, ExecutionError) as error:
        raise TraceError(f"{what}: {error}") from error


def _random(plan: Plan) -> dict[str, Array]:
    generator = np.random.Generator(np.random.Philox(_SEED))
    data: dict[str, Array] = {}
    for field in plan.manifest.data_fields:
        shape = (_EXAMPLES, *field.shape)
        if field.dtype.startswith("float"):
            data[field.name] = generator.standard_normal(shape).astype(field.dtype)
        else:
            data[field.name] = generator.integers(0, field.below or 2, shape).astype(field.dtype)
    return data


def _by_plan(plan: Plan, data: Mapping[str, Array], state: Array, count: int) -> Iterator[tuple[str, Array]]:
    """Results one after another, so that none needs to stay when it was compared."""
    executor = Executor(plan, keep_memory=False)  # each function runs once
    start = plan.initial("theta", copy=False), plan.initial("buffers", copy=False)
    rows, rates = np.arange(count)[None, :], np.array([_rate(plan)], np.float32)
    results = executor.call_train([start[0], state, start[1]], data, rows, rates, _SEED)
    results.reverse()
    yield "theta", _moved(results.pop(), start[0])
    yield "optimizer_state", results.pop()
    yield "buffers", _moved(results.pop(), start[1])
    yield "train metrics", results.pop()[0, 1:]
    yield "evaluate metrics", np.array(list(executor.evaluate(*start, data).sums.values()))
    yield "outputs", executor.predict(*start, {field.name: data[field.name] for field in plan.manifest.inputs})


def _moved(after: Array, start: Array) -> Array:
    """The way from `start`, in the place of `after`."""
    after -= start
    return after


def _rate(plan: Plan) -> float:
    return plan.manifest.training.learning_rate if plan.manifest.training is not None else 0.1


def _eager(
    subject: Subject, layout: Layout, data: Mapping[str, Array], state: Array, plan: Plan, draws: int
) -> dict[str, Array]:
    """The same by PyTorch's eager mode: its autograd, on real tensors."""
    given = [torch.from_numpy(np.array(data[field.name])) for field in plan.manifest.data_fields]
    start = {role: plan.initial(role, copy=False) for role in ("theta", "buffers", "frozen")}
    theta = _tensors(start["theta"], layout.parameters)
    moving, fixed = _tensors(start["buffers"], layout.buffers), _tensors(start["frozen"], layout.frozen)
    states = _tensors(state, layout.optimizer_state)
    try:
        subject.model.train()
        with Draws(_SEED, 0, draws), unfused():
            after, next_state, buffers, loss, sums = subject.train_step(
                theta, states, moving, fixed, _copies(given), torch.tensor(_rate(plan))
            )
        subject.model.eval()
        with unfused():
            judged, judged_sums = subject.evaluate_step(theta, moving, fixed, _copies(given))
            outputs = subject.predict(theta, moving, fixed, _copies(given[: subject.input_count]))
    except TraceError:
        raise
    except Exception as error:
        said = explained(error, what="self-check: PyTorch itself fails on the examples")
        raise TraceError(f"{said}; or give fitting ones by check={{field: array}}, or check=False") from error
    del theta, states
    count = len(given[0])
    return {
        "theta": put_aside(_moved(_flat(after), start["theta"])),
        "optimizer_state": put_aside(_flat(next_state)),
        "buffers": put_aside(_moved(_flat(buffers), start["buffers"])),
        "train metrics": _sums(loss, sums, count),
        "evaluate metrics": _sums(judged, judged_sums, count),
        "outputs": outputs.numpy(),
    }


def _tensors(vector: Array, shapes: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    parts, at = [], 0
    for shape in shapes:
        size = int(np.prod(shape))
        parts.append(torch.from_numpy(vector[at : at + size].reshape(shape).copy()))
        at += size
    return parts


def _copies(data: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """A model may write into its inputs, as it may into a batch that a loader made for it."""
    return [tensor.clone() for tensor in data]


def _flat(tensors: list[torch.Tensor]) -> Array:
    """One vector of all tensors, each let go of as soon as it is in."""
    flat = np.empty(sum(tensor.numel() for tensor in tensors), np.float32)
    at = len(flat)
    while tensors:
        part = tensors.pop().detach().numpy().ravel()
        flat[at - part.size : at] = part
        at -= part.size
    return flat


def _sums(loss: torch.Tensor, sums: Sequence[torch.Tensor], count: int) -> Array:
    return np.array([float(loss) * count, *(float(value) for value in sums)])


def _compare(what: str, name: str, found: Array, want: Array) -> None:
    if not np.isfinite(want).all():
        raise TraceError(
            f"{what}: PyTorch gives NaN or infinity for {name}; give fitting examples by check={{field: array}}, "
            "or check=False"
        )
    if found.shape != want.shape:
        raise TraceError(f"{what}: {name} has shape {list(found.shape)} in the plan, {list(want.shape)} in PyTorch")
    off, scale = _norms(found.ravel(), want.ravel())
    if not off <= _TOLERANCE * scale + 1e-6:
        raise TraceError(
            f"{what}: {name} differs from PyTorch by {off:.3g} of {scale:.3g}, more than {_TOLERANCE:g} of it; "
            "an operator of the model was traced wrongly: please report it with the model"
        )


def _norms(found: Array, want: Array) -> tuple[float, float]:
    """|found - want| and |want| in float64, of which only tiles are in memory."""
    off = scale = 0.0
    for at in range(0, len(want), _TILE):
        tile = want[at : at + _TILE].astype(np.float64)
        scale += float(np.vdot(tile, tile))
        tile = found[at : at + _TILE] - tile
        off += float(np.vdot(tile, tile))
    return math.sqrt(off), math.sqrt(scale)
