"""Run each function of a plan once: here, or in a process of its own that knows neither PyTorch nor the model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from plans.bundle import load
from plans.errors import ExecutionError, PlanError
from plans.execute import Executor
from plans.large_models import give_memory_back
from plans.new_process import start_module
from plans.stored import Stored

if TYPE_CHECKING:
    from plans.bundle import Plan

__all__ = ["Trial", "run_apart", "run_here"]

Array = np.ndarray[Any, Any]

_VECTORS = ("theta", "optimizer_state", "buffers")
_OTHERS = ("train metrics", "evaluate metrics", "outputs")
_REFUSED = 3
"""Exit code of a process that wrote down why it could not run the plan."""


@dataclass(frozen=True)
class Trial:
    """What a plan is run on: examples by field name [N, ...], float32 [Q] of state, and what one step reads."""

    data: Mapping[str, Array]
    optimizer_state: Array | Stored
    learning_rate: float
    seed: int


def run_here(plan: Plan, trial: Trial) -> Iterator[tuple[str, Array]]:
    """Results by name, one after another, so that none needs to stay when it was looked at.

    First those of one step on all examples: how far theta moved, the optimizer's state, how far buffers moved, and
    sums of metrics; then evaluation's sums, and predicted outputs.

    Raises:
        ExecutionError: ONNX Runtime failed.
        UnusableDataError: examples that do not fit the plan.
    """
    executor = Executor(plan, keep_memory=False)  # each function runs once
    start = plan.initial("theta", copy=False), plan.initial("buffers", copy=False)
    rows = np.arange(len(next(iter(trial.data.values()))))[None, :]
    rates = np.array([trial.learning_rate], np.float32)
    state = [start[0], trial.optimizer_state[:], start[1]]
    results = executor.call_train(state, trial.data, rows, rates, trial.seed)
    del state
    results.reverse()
    yield "theta", _moved(results.pop(), start[0])
    yield "optimizer_state", results.pop()
    yield "buffers", _moved(results.pop(), start[1])
    yield "train metrics", results.pop()[0, 1:]
    yield "evaluate metrics", np.array(list(executor.evaluate(*start, trial.data).sums.values()))
    inputs = {field.name: trial.data[field.name] for field in plan.manifest.inputs}
    yield "outputs", executor.predict(*start, inputs)


def run_apart(plan: Plan, trial: Trial, folder: Path) -> Iterator[tuple[str, Array | Stored]]:
    """The same in a new process, whose memory goes with it; vectors stay in files of `folder` that nobody else uses.

    Raises:
        ExecutionError: as above, or the process could not start or came to another end, for lack of memory say.
    """
    plan.save(folder / "plan")
    np.savez(folder / "data.npz", *(trial.data[field.name] for field in plan.manifest.data_fields))
    settings = {"learning_rate": trial.learning_rate, "seed": trial.seed}
    (folder / "settings.json").write_text(json.dumps(settings | {"state": str(_kept(trial, folder))}))
    _run_process(folder, f"plan {plan.manifest.name}")
    for name in _VECTORS:
        yield name, Stored.found(folder / name)
    for name in _OTHERS:
        yield name, np.load(folder / f"{name}.npy")


def _moved(after: Array, start: Array) -> Array:
    """The way from `start`, in the place of `after`."""
    after -= start
    return after


def _kept(trial: Trial, folder: Path) -> Path:
    """The file that holds the optimizer's state."""
    if isinstance(trial.optimizer_state, Stored):
        return trial.optimizer_state.path
    trial.optimizer_state.tofile(folder / "state")
    return folder / "state"


def _run_process(folder: Path, what: str) -> None:
    with (folder / "said").open("wb") as said:
        process = start_module("plans.trial", str(folder), what=what, stdin=subprocess.PIPE, stdout=said, stderr=said)
        with process:
            try:
                code = process.wait()
            except BaseException:  # Ctrl-C, after which `with` itself waits for nothing
                process.kill()
                process.wait()
                raise
    if code == _REFUSED:
        raise ExecutionError((folder / "refused").read_text())
    if code < 0:
        why = ", as systems do when memory runs out" if -code == signal.SIGKILL else ""
        raise ExecutionError(f"{what}: the process it ran in was ended by {signal.Signals(-code).name}{why}")
    if code:
        last = (folder / "said").read_text(errors="replace").strip().splitlines()[-1:]
        raise ExecutionError(f"{what}: the process it ran in ended with code {code}: {''.join(last) or 'no word'}")


def _in_a_process_of_its_own(folder: Path) -> None:
    """What `_run_process` starts: everything comes from files and goes to files of `folder`."""
    Thread(target=_end_with_the_author, args=[folder], daemon=True).start()
    give_memory_back()
    settings = json.loads((folder / "settings.json").read_text())
    try:
        plan = load(folder / "plan")
        shutil.rmtree(folder / "plan")
        with np.load(folder / "data.npz") as stored:
            data = {field.name: stored[f"arr_{at}"] for at, field in enumerate(plan.manifest.data_fields)}
        state = Stored.found(Path(settings["state"]))
        trial = Trial(data, state, settings["learning_rate"], settings["seed"])
        for name, result in run_here(plan, trial):
            if name in _VECTORS:
                result.tofile(folder / name)
            else:
                np.save(folder / f"{name}.npy", result)
    except PlanError as error:
        (folder / "refused").write_text(str(error))
        sys.exit(_REFUSED)


def _end_with_the_author(folder: Path) -> None:
    """When the author's process is gone, however it ended, its end of the pipe closes: leave nothing behind."""
    os.read(sys.stdin.fileno(), 1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    _in_a_process_of_its_own(Path(sys.argv[1]))
