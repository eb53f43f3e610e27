"""One training step, batch 32, one thread: eager PyTorch, the plan called step by step, and the plan's Loop.

`python -m benchmarks.plan_step [--json] [--models NAME ...] [--repeats N]`; seconds per step. The three are timed in
turn in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import plans
from benchmarks.measure import at_least, interleaved, options_of, print_report

BATCH, STRETCH, EXAMPLES = 32, 32, 1024

Model = tuple[Callable[[], nn.Module], tuple[int, ...]]


def _mlp(inputs: int, hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def _cnn() -> nn.Module:
    """The CNN of McMahan et al. (2017), figure 2: 5x5 convolutions of 32 and 64 channels, 512 hidden units."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3136, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


MODELS: dict[str, Model] = {
    "MLP 64-32-10": (lambda: _mlp(64, 32), (64,)),
    "MLP 784-392-10": (lambda: _mlp(784, 392), (784,)),
    "CNN 1-32-64": (_cnn, (1, 28, 28)),
}


def measure(build: Callable[[], nn.Module], shape: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Seconds per step of the three ways, and eager divided by the Loop."""
    torch.manual_seed(0)
    model = build()
    plan = plans.trace(
        model,
        loss="cross_entropy",
        optimizer=plans.SGD(lr=0.01),
        inputs={"x": plans.Field("float32", shape)},
        targets={"y": plans.Field("int64")},
        metrics=["accuracy"],
        name="benchmark",
        version="1",
    )
    rng = np.random.default_rng(0)
    data: dict[str, np.ndarray] = {
        "x": rng.standard_normal((EXAMPLES, *shape)).astype(np.float32),
        "y": rng.integers(0, 10, EXAMPLES),
    }
    ways = {
        "eager": _eager(model, data),
        "plan_step_by_step": _by_plan(plan, data, 1),
        "plan_loop": _by_plan(plan, data, STRETCH),
    }
    timings = interleaved(ways, repeats, warm_up=2)
    per_step = {
        name: timing | {"median": timing["median"] / STRETCH, "spread": [s / STRETCH for s in timing["spread"]]}
        for name, timing in timings.items()
    }
    ratio = per_step["eager"]["median"] / per_step["plan_loop"]["median"]
    return {"seconds_per_step": per_step, "eager_over_loop": round(ratio, 2)}


def _eager(model: nn.Module, data: dict[str, np.ndarray]) -> Callable[[], None]:
    """`STRETCH` steps of ordinary PyTorch, with the same metrics kept."""
    x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    index = torch.arange(BATCH * STRETCH).reshape(STRETCH, BATCH) % EXAMPLES

    def run() -> None:
        loss_sum, hits = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for row in index:
            images, labels = x[row], y[row]
            optimizer.zero_grad()
            outputs = model(images)
            loss = functional.cross_entropy(outputs, labels)
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * BATCH
            hits += (outputs.argmax(1) == labels).sum()

    return run


def _by_plan(plan: plans.Plan, data: dict[str, np.ndarray], steps_per_call: int) -> Callable[[], object]:
    """`STRETCH` steps by the executor as a node uses it, checks of the data included."""
    executor = plans.Executor(plan, threads=1)
    theta, state, buffers = (plan.initial(role) for role in ("theta", "optimizer_state", "buffers"))
    return lambda: executor.train(
        theta,
        state,
        buffers,
        data,
        batch_size=BATCH,
        epochs=BATCH * STRETCH // EXAMPLES,
        learning_rate=0.01,
        seed=b"benchmark",
        steps_per_call=steps_per_call,
    )


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """One per model, for people."""
    for name, found in figures.items():
        times = ", ".join(f"{way} {t['median'] * 1e3:.3f} ms" for way, t in found["seconds_per_step"].items())
        yield f"{name}: {times}, eager/loop {found['eager_over_loop']}"


def main() -> None:
    """Print one JSON object, or a line per model."""
    parser = options_of(__doc__)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), help="all by default")
    parser.add_argument("--repeats", type=at_least(1), default=15, help="default: %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {name: measure(*MODELS[name], options.repeats) for name in options.models}
    settings = {"batch": BATCH, "steps_per_call": STRETCH, "threads": 1, "optimizer": "SGD"}
    print_report("plan_step", settings=settings, figures=figures, as_json=options.json, lines=lines)


if __name__ == "__main__":
    main()
