"""Check a fresh plan against PyTorch: one step, one evaluation, one prediction, on the same numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

import numpy as np

from plans.authoring.eager import by_pytorch
from plans.checking import check_examples
from plans.errors import ExecutionError, TraceError, UnusableDataError
from plans.large_models import giving_memory_back, is_large
from plans.stored import Stored
from plans.trial import Trial, run_apart, run_here

if TYPE_CHECKING:
    from plans.authoring.subject import Subject
    from plans.authoring.vectors import Layout
    from plans.bundle import Plan

__all__ = ["check_against_pytorch"]

Array = np.ndarray[Any, Any]

_EXAMPLES = 5
_RANDOMLY = "self-check with random data"
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

    Of a large model vectors wait in files of a temporary folder, and the plan runs in a process of its own.

    Raises:
        TraceError: they differ, PyTorch or ONNX Runtime fails, or `data` does not fit; says by how much and where.
    """
    examples = _random(plan) if data is None else {name: np.asarray(value) for name, value in data.items()}
    what = _RANDOMLY if data is None else "self-check"
    rate = plan.manifest.training.learning_rate if plan.manifest.training is not None else 0.1
    try:
        check_examples(plan.manifest, examples, plan.manifest.data_fields)
        with ExitStack() as stack:
            folder = None
            if is_large(plan.manifest):
                stack.enter_context(giving_memory_back())
                folder = Path(stack.enter_context(TemporaryDirectory(prefix="peerplan-check-")))
            trial = Trial(examples, _state(plan.manifest.optimizer_count, folder), rate, _SEED)
            room = lambda name, size: _room(folder, f"expected-{name}", size)  # noqa: E731
            expected = by_pytorch(subject, layout, plan, trial, room, draws=draws)
            results = run_here(plan, trial) if folder is None else run_apart(plan, trial, folder)
            for name, found in results:
                _compare(what, name, found, expected.pop(name))
    except (UnusableDataError, ExecutionError) as error:
        raise TraceError(f"{what}: {error}") from error
    except OSError as error:
        raise TraceError(f"{what}: files of a large model's vectors, in {gettempdir()}: {error}") from error


def _room(folder: Path | None, name: str, size: int) -> Array | Stored:
    """A new vector, in memory or in a file."""
    return np.empty(size, np.float32) if folder is None else Stored(folder / name, size)


def _state(size: int, folder: Path | None) -> Array | Stored:
    state, generator = _room(folder, "state", size), np.random.Generator(np.random.Philox(_SEED))
    for at in range(0, size, _TILE):
        state[at : at + _TILE] = generator.random(min(_TILE, size - at), np.float32) + np.float32(0.5)
    return state


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


def _compare(what: str, name: str, found: Array | Stored, want: Array | Stored) -> None:
    if found.shape != want.shape:
        raise TraceError(f"{what}: {name} has shape {list(found.shape)} in the plan, {list(want.shape)} in PyTorch")
    off, scale = _norms(_flat(found), _flat(want))
    if not math.isfinite(scale):
        raise TraceError(
            f"{what}: PyTorch gives NaN or infinity for {name}; give fitting examples by check={{field: array}}, "
            "or check=False"
        )
    if not off <= _TOLERANCE * scale + 1e-6:
        or_else = (
            "; or random examples are such as PyTorch does not define (labels that are CTC's blank): "
            "give fitting ones by check={field: array}"
        )
        raise TraceError(
            f"{what}: {name} differs from PyTorch by {off:.3g} of {scale:.3g}, more than {_TOLERANCE:g} of it; "
            f"an operator of the model was traced wrongly: please report it with the model"
            f"{or_else if what == _RANDOMLY else ''}"
        )


def _flat(vector: Array | Stored) -> Array | Stored:
    return vector if isinstance(vector, Stored) else vector.ravel()


def _norms(found: Array | Stored, want: Array | Stored) -> tuple[float, float]:
    """|found - want| and |want|, in float64 by tiles; a |want| that is not finite comes with nan."""
    off = scale = 0.0
    for at in range(0, want.shape[0], _TILE):
        tile = want[at : at + _TILE].astype(np.float64)
        scale += float(np.vdot(tile, tile))
        if not math.isfinite(scale):
            return math.nan, scale
        tile = found[at : at + _TILE] - tile
        off += float(np.vdot(tile, tile))
    return math.sqrt(off), math.sqrt(scale)
