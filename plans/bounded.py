"""Run a plan in a process of its own that takes no more memory than an owner allows. Its end is an error, no more."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from plans.errors import CancelledError, ExecutionError, HarmfulPlanError, UnusableDataError
from plans.execute import CALL_LIMIT_S, Metrics
from plans.large_models import is_large
from plans.memory_limit import BEYOND_LIMIT, LEAST_LIMIT_BYTES
from plans.new_process import start_module
from plans.process_messages import ArrayForm, Cancel, Channel, Evaluate, Open, Train, form_of
from plans.watchdog import POLL_S

if TYPE_CHECKING:
    from plans.bundle import Plan

__all__ = ["BoundedExecutor", "Trained"]

Array = np.ndarray[Any, Any]
Vector = np.ndarray[Any, np.dtype[np.float32]]

_GRACE_S = 20.0
"""Seconds in which a call that nobody wants any more must end by itself: one operator may take long."""


@dataclass(frozen=True)
class Trained:
    """Vectors after training, and metrics over every example seen (an example counts once per epoch)."""

    theta: Vector
    buffers: Vector
    metrics: Metrics


class BoundedExecutor:
    """Trains and evaluates as `Executor` does, bit for bit, in a process that takes at most `memory_limit` bytes.

    The limit counts everything in that process: Python and ONNX Runtime (some 60 MB), the plan, the examples it was
    given, and every value of a graph. A plan that needs more ends its process and nothing else; the next call starts
    another. One call at a time; `close` may come from any thread, and is called at the latest when this object goes.

    Raises:
        ExecutionError: the process does not start.
        HarmfulPlanError: the plan alone is more than the limit.
        UnusableDataError: the limit is below `LEAST_LIMIT_BYTES`.
    """

    def __init__(
        self, plan: Plan, *, memory_limit: int, threads: int = 1, call_limit_s: float = CALL_LIMIT_S
    ) -> None:
        if memory_limit < LEAST_LIMIT_BYTES:
            raise UnusableDataError(
                f"a limit of {memory_limit} bytes of memory, expected at least {LEAST_LIMIT_BYTES}"
            )
        self._plan = plan
        self._memory_limit = memory_limit
        self._threads, self._call_limit_s = threads, call_limit_s
        self._what = f"plan {plan.manifest.name}"
        self._turn = threading.Lock()
        self._number = 0
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._held: dict[type[Train | Evaluate], Mapping[str, Array]] = {}
        with self._turn:
            self._opened()

    @property
    def process_id(self) -> int | None:
        """The system's number of the process, while there is one."""
        process = self._process
        return None if process is None else process.pid

    def train(
        self,
        theta: Vector,
        buffers: Vector,
        data: Mapping[str, Array],
        *,
        batch_size: int,
        epochs: int,
        learning_rate: float,
        seed: bytes,
        steps_per_call: int = 256,
        keep_data: bool = False,
        cancelled: Callable[[], bool] | None = None,
    ) -> Trained:
        """Train from the plan's initial optimizer state; arguments and errors are those of `Executor.train`.

        With `keep_data` the process keeps the examples: the next call with the same mapping sends them no more, so
        its arrays must not be changed.

        Raises:
            HarmfulPlanError: the process ended: at its limit of memory, or because the plan broke it.
        """
        manifest = self._plan.manifest
        theta, buffers, sums = self._run(
            Train,
            {"theta": theta, "buffers": buffers},
            data,
            [
                ArrayForm("theta", "<f4", (manifest.parameter_count,)),
                ArrayForm("buffers", "<f4", (manifest.buffer_count,)),
            ],
            cancelled,
            keep_data=keep_data,
            batch_size=batch_size,
            epochs=epochs,
            learning_rate=learning_rate,
            seed=seed,
            steps_per_call=steps_per_call,
        )
        return Trained(theta, buffers, self._metrics(sums))

    def evaluate(
        self,
        theta: Vector,
        buffers: Vector,
        data: Mapping[str, Array],
        *,
        keep_data: bool = False,
        cancelled: Callable[[], bool] | None = None,
    ) -> Metrics:
        """Metrics over all examples; arguments and errors as in `Executor.evaluate` and `train`."""
        vectors = {"theta": theta, "buffers": buffers}
        (sums,) = self._run(Evaluate, vectors, data, [], cancelled, keep_data=keep_data)
        return self._metrics(sums)

    def close(self) -> None:
        """End the process; a call in another thread ends with `CancelledError`."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
        threading.Thread(target=self._clear_up, name="peerplan-reaper", daemon=True).start()

    def _clear_up(self) -> None:
        with self._turn:
            self._drop()

    # One call.

    def _run(
        self,
        kind: type[Train | Evaluate],
        vectors: Mapping[str, Vector],
        data: Mapping[str, Array],
        expected: Sequence[ArrayForm],
        cancelled: Callable[[], bool] | None,
        *,
        keep_data: bool,
        **settings: Any,
    ) -> list[Array]:
        with self._turn:
            if cancelled is not None and cancelled():
                raise CancelledError(f"{self._what}: called off before it began")
            self._opened()
            known = self._held.get(kind) is data
            examples = {} if known else {field.name: data[field.name] for field in self._fields(data)}
            if keep_data:
                self._held[kind] = data
            else:
                self._held.pop(kind, None)
            given = {**vectors, **{f"data/{name}": array for name, array in examples.items()}}
            forms = tuple(form_of(name, array) for name, array in given.items())
            request = kind(number=self._next(), arrays=forms, keep_data=keep_data, **settings)
            sums = ArrayForm("sums", "<f8", (1 + len(self._plan.manifest.metrics),))
            return self._ask(request, list(given.values()), [*expected, sums], cancelled)

    def _fields(self, data: Mapping[str, Array]) -> list[Any]:
        missing = [field.name for field in self._plan.manifest.data_fields if field.name not in data]
        if missing:
            raise UnusableDataError(
                f"{self._what} reads field {missing[0]!r}; the data has {', '.join(sorted(data)) or 'none'}"
            )
        return list(self._plan.manifest.data_fields)

    def _ask(
        self,
        request: Open | Train | Evaluate,
        given: Sequence[Array],
        expected: Sequence[ArrayForm],
        cancelled: Callable[[], bool] | None = None,
    ) -> list[Array]:
        channel = self._channel
        assert channel is not None
        try:
            channel.send(request, given)
            self._wait(channel, request.number, cancelled)
            answer = channel.answer_to(request)
            if answer.error is None:
                return [channel.take(form) for form in expected]
        except (EOFError, OSError) as error:
            raise self._ended() from error
        except BaseException:
            self._drop()  # nobody could tell which request its next answer is to
            raise
        errors = {"execution": ExecutionError, "data": UnusableDataError, "cancelled": CancelledError}
        raise errors[answer.error](answer.text)

    def _wait(self, channel: Channel, number: int, cancelled: Callable[[], bool] | None) -> None:
        unwanted_since: float | None = None
        while not channel.has_more(within_s=POLL_S):
            if unwanted_since is None:
                if cancelled is not None and cancelled():
                    channel.send(Cancel(number=number))
                    unwanted_since = time.monotonic()
            elif time.monotonic() - unwanted_since > _GRACE_S:
                raise CancelledError(f"{self._what}: stopped on the way, with its process")

    def _metrics(self, sums: Array) -> Metrics:
        names = [metric.name for metric in self._plan.manifest.metrics]
        return Metrics(int(sums[0]), dict(zip(names, sums[1:].tolist(), strict=True)))

    def _next(self) -> int:
        self._number += 1
        return self._number

    # The process.

    def _opened(self) -> None:
        """Have a process that knows the plan."""
        if self._closed:
            raise CancelledError(f"{self._what}: this node has left its run")
        if self._process is not None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = start_module(
                "plans.process",
                str(self._memory_limit),
                what=self._what,
                settings={"OPENBLAS_NUM_THREADS": "1"},  # numpy's threads would take memory and do nothing
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the node's to hear
            )
        self._channel = Channel(ours)
        self._finish = weakref.finalize(self, _end, self._process, self._channel)
        parts = {"manifest": self._plan.manifest_bytes, **self._plan.blobs}
        arrays = {name: np.frombuffer(part, np.uint8) for name, part in parts.items()}
        request = Open(
            number=self._next(),
            arrays=tuple(form_of(name, array) for name, array in arrays.items()),
            threads=self._threads,
            keep_memory=not is_large(self._plan.manifest),
            call_limit_s=self._call_limit_s,
        )
        self._ask(request, list(arrays.values()), [])

    def _ended(self) -> ExecutionError | CancelledError:
        """Why the process is gone."""
        process = self._process
        assert process is not None
        code = process.wait()
        self._drop()
        most = f"{self._memory_limit / 1e6:,.0f} MB of memory, this node's limit for one run"
        if self._closed:
            return CancelledError(f"{self._what}: this node has left its run")
        if code == BEYOND_LIMIT:
            return HarmfulPlanError(f"{self._what}: needs more than {most} (max_memory_bytes)")
        if code == -signal.SIGKILL:
            return HarmfulPlanError(
                f"{self._what}: the process it ran in was ended by SIGKILL, as systems do when memory runs out, "
                f"below {most} (max_memory_bytes)"
            )
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return HarmfulPlanError(f"{self._what}: the process it ran in {how}, with at most {most}")

    def _drop(self) -> None:
        if self._process is not None:
            self._finish()
        self._process = self._channel = None
        self._held.clear()


def _end(process: subprocess.Popen[bytes], channel: Channel) -> None:
    process.kill()
    process.wait()
    channel.close()
