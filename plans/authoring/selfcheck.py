"""Check a fresh plan against PyTorch: one step, one evaluation, one prediction, on the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from plans.authoring.capture import unfused
from plans.authoring.explaining import explained
from plans.authoring.randomness import Draws
from plans.checking import check_examples
from plans.errors import ExecutionError, TraceError, UnusableDataError
from plans.execute import Executor

if TYPE_CHECKING:
    from plans.authoring.assembly import Layout
    from plans.authoring.subject import Subject
    from plans.bundle import Plan

__all__ = ["check_against_pytorch"]

Array = np.ndarray[Any, Any]

_EXAMPLES = 5
_SEED = 20_260_101
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
    state = generator.uniform(0.5, 1.5, plan.manifest.optimizer_count).astype(np.float32)
    try:
        count = check_examples(plan.manifest, examples, plan.manifest.data_fields)
        expected = _eager(subject, layout, examples, state, plan, draws)
        found = _by_plan(plan, examples, state, count)
    except (UnusableDataError, ExecutionError) as error:
        raise TraceError(f"{what}: {error}") from error
    for name, want in expected.items():
        _compare(what, name, found[name], want)


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


def _by_plan(plan: Plan, data: Mapping[str, Array], state: Array, count: int) -> dict[str, Array]:
    executor = Executor(plan, keep_memory=False)  # each function runs once
    start = plan.initial("theta"), plan.initial("buffers")
    feeds = [start[0], state, start[1]]
    rows, rates = np.arange(count)[None, :], np.array([_rate(plan)], np.float32)
    theta, next_state, buffers, trained = executor.call_train(feeds, data, rows, rates, _SEED)
    evaluated = executor.evaluate(*start, data)
    inputs = {field.name: data[field.name] for field in plan.manifest.inputs}
    return {
        "theta": theta - start[0],
        "optimizer_state": next_state,
        "buffers": buffers - start[1],
        "train metrics": trained[0, 1:],
        "evaluate metrics": np.array(list(evaluated.sums.values())),
        "outputs": executor.predict(*start, inputs),
    }


def _rate(plan: Plan) -> float:
    return plan.manifest.training.learning_rate if plan.manifest.training is not None else 0.1


def _eager(
    subject: Subject, layout: Layout, data: Mapping[str, Array], state: Array, plan: Plan, draws: int
) -> dict[str, Array]:
    """The same by PyTorch's eager mode: its autograd, on real tensors."""
    given = [torch.from_numpy(np.array(data[field.name])) for field in plan.manifest.data_fields]
    theta, moving, fixed = (
        _tensors(plan.initial(role), shapes)
        for role, shapes in (
            ("theta", layout.parameters), ("buffers", layout.buffers), ("frozen", layout.frozen),
        )
    )  # fmt: skip
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
    count = len(given[0])
    return {
        "theta": _flat(after) - plan.initial("theta"),
        "optimizer_state": _flat(next_state),
        "buffers": _flat(buffers) - plan.initial("buffers"),
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


def _flat(tensors: Sequence[torch.Tensor]) -> Array:
    return np.concatenate([np.zeros(0, np.float32), *(tensor.detach().numpy().ravel() for tensor in tensors)])


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
    off = float(np.linalg.norm(found.astype(np.float64) - want))
    scale = float(np.linalg.norm(want.astype(np.float64)))
    if not off <= _TOLERANCE * scale + 1e-6:
        raise TraceError(
            f"{what}: {name} differs from PyTorch by {off:.3g} of {scale:.3g}, more than {_TOLERANCE:g} of it; "
            "an operator of the model was traced wrongly: please report it with the model"
        )
