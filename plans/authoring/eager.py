"""What a plan's functions should give, by PyTorch's eager mode: its autograd, on real tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from plans.authoring.capture import unfused
from plans.authoring.explaining import explained
from plans.authoring.randomness import Draws
from plans.errors import TraceError
from plans.stored import Stored

if TYPE_CHECKING:
    from plans.authoring.subject import Subject
    from plans.authoring.vectors import Layout
    from plans.bundle import Plan
    from plans.trial import Trial

__all__ = ["by_pytorch"]

Array = np.ndarray[Any, Any]
Room = Callable[[str, int], "Array | Stored"]
"""A new float32 vector by its name and size."""

_TILE = 1 << 18


def by_pytorch(
    subject: Subject, layout: Layout, plan: Plan, trial: Trial, room: Room, *, draws: int
) -> dict[str, Array | Stored]:
    """The results of `plans.trial.run_here`, by name.

    PyTorch works on the model's own parameters, so that they are in memory once; if forward writes into them they are
    put back. Parameters and state after the step are made tile by tile, and are nowhere but in what `room` gives.

    Raises:
        TraceError: PyTorch itself fails on the examples.
    """
    given = [torch.from_numpy(np.array(trial.data[field.name])) for field in plan.manifest.data_fields]
    start = {role: plan.initial(role, copy=False) for role in ("theta", "buffers", "frozen")}
    moving, fixed = _tensors(start["buffers"], layout.buffers), _tensors(start["frozen"], layout.frozen)
    theta = [parameter.detach().cpu().contiguous() for parameter in subject.parameters.values()]
    vectors = {"theta": room("theta", len(start["theta"])), "state": room("state", trial.optimizer_state.shape[0])}
    try:
        subject.model.train()
        with Draws(trial.seed, 0, draws), unfused():
            after, gradients, buffers, loss, sums = subject.gradients(theta, moving, fixed, _copies(given))
            with torch.no_grad():
                directions = subject.stepping.directions(gradients, _ways(subject, layout, trial))
                del gradients
                _step(subject, layout, trial, (after, directions), start["theta"], vectors)
        del directions
        _put_back(theta, start["theta"])
        subject.model.eval()
        with unfused():
            judged, judged_sums = subject.evaluate_step(theta, moving, fixed, _copies(given))
            outputs = subject.predict(theta, moving, fixed, _copies(given[: subject.input_count]))
    except TraceError:
        raise
    except Exception as error:
        said = explained(error, what="self-check: PyTorch itself fails on the examples")
        raise TraceError(f"{said}; or give fitting ones by check={{field: array}}, or check=False") from error
    finally:
        _put_back(theta, start["theta"])
    count = len(given[0])
    return {
        "theta": vectors["theta"],
        "optimizer_state": vectors["state"],
        "buffers": _flat(buffers) - start["buffers"],
        "train metrics": _sums(loss, sums, count),
        "evaluate metrics": _sums(judged, judged_sums, count),
        "outputs": outputs.numpy(),
    }


def _step(
    subject: Subject,
    layout: Layout,
    trial: Trial,
    moving: tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]],
    start: Array,
    into: dict[str, Array | Stored],
) -> None:
    """How far parameters move in their directions, and the state after it, a tile of one parameter at a time."""
    state, rate = trial.optimizer_state, torch.tensor(trial.learning_rate)
    places = _places(layout.optimizer_state)
    for at, (parameter, direction, (first, _)) in enumerate(zip(*moving, _places(layout.parameters), strict=True)):
        values, ways = parameter.reshape(-1), direction.reshape(-1)
        belonging = [(places[where], own) for where, own in subject.stepping.state_of(at, len(layout.parameters))]
        for begin, end in _tiles(len(values)):
            parts = [slice(p + begin, p + end) if own else slice(p, q) for (p, q), own in belonging]
            tensors = [
                torch.from_numpy(state[part]) if own else torch.from_numpy(state[part]).reshape(())
                for part, (_, own) in zip(parts, belonging, strict=True)
            ]
            (after,), following = subject.stepping.advance([values[begin:end]], [ways[begin:end]], tensors, rate)
            tile = slice(first + begin, first + end)
            into["theta"][tile] = after.numpy() - start[tile]
            for part, tensor in zip(parts, following, strict=True):
                into["state"][part] = tensor.reshape(-1).numpy()


def _ways(subject: Subject, layout: Layout, trial: Trial) -> list[torch.Tensor]:
    """The state that directions depend on: the ways from the checkpoint, which are last."""
    count = len(layout.parameters) if subject.stepping.proximal else 0
    shapes = layout.optimizer_state[len(layout.optimizer_state) - count :]
    places = _places(layout.optimizer_state)[len(layout.optimizer_state) - count :]
    return [
        torch.from_numpy(trial.optimizer_state[p:q]).reshape(shape)
        for (p, q), shape in zip(places, shapes, strict=True)
    ]


def _put_back(theta: Sequence[torch.Tensor], start: Array) -> None:
    """Undo what a model wrote into its own parameters, clamped weights for instance."""
    for tensor, (p, q) in zip(theta, _places([tuple(tensor.shape) for tensor in theta]), strict=True):
        values, first = tensor.numpy(), start[p:q].reshape(tensor.shape)
        if not np.array_equal(values, first):
            np.copyto(values, first)


def _places(shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, int]]:
    """Where tensors of these shapes begin and end in a flat vector."""
    return list(pairwise(accumulate((int(np.prod(shape)) for shape in shapes), initial=0)))


def _tiles(size: int) -> Iterator[tuple[int, int]]:
    return ((at, min(at + _TILE, size)) for at in range(0, size, _TILE))


def _tensors(vector: Array, shapes: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    return [
        torch.from_numpy(vector[p:q].reshape(shape).copy())
        for (p, q), shape in zip(_places(shapes), shapes, strict=True)
    ]


def _copies(data: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """A model may write into its inputs, as it may into a batch that a loader made for it."""
    return [tensor.clone() for tensor in data]


def _flat(tensors: Sequence[torch.Tensor]) -> Array:
    return np.concatenate([np.empty(0, np.float32), *(tensor.numpy().ravel() for tensor in tensors)])


def _sums(loss: torch.Tensor, sums: Sequence[torch.Tensor], count: int) -> Array:
    return np.array([float(loss) * count, *(float(value) for value in sums)])
