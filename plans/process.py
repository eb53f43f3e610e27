"""The process that runs one plan for a node: it holds plan and examples, keeps to a limit of memory, and answers.

`plans.bounded` starts it and says what it does. It ends when the node's end of the socket closes.
"""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from plans.bundle import Plan
from plans.errors import CancelledError, PlanError, UnusableDataError
from plans.execute import Executor, Metrics
from plans.large_models import give_memory_back, is_large
from plans.memory_limit import BEYOND_LIMIT, keep_to
from plans.process_messages import MAX_TEXT, Answer, Cancel, Channel, Evaluate, Open, Request, Train
from protocol.manifest import decode_manifest

__all__: list[str] = []

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

_NO_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory")
"""How ONNX Runtime says that the system refused memory."""


class _Listener:
    """Hears the node in a thread of its own, so that a cancellation, or its end, is heard while a plan runs."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: queue.SimpleQueue[tuple[Request, Arrays]] = queue.SimpleQueue()
        self._cancelled = -1
        threading.Thread(target=self._listen, name="peerplan-listener", daemon=True).start()

    def next(self) -> tuple[Request, Arrays]:
        return self._waiting.get()

    def is_cancelled(self, number: int) -> bool:
        return number <= self._cancelled

    def _listen(self) -> None:
        try:
            while True:
                request: Request = self._channel.receive(Request)
                if isinstance(request, Cancel):
                    self._cancelled = request.number
                    continue
                arrays = {form.name: self._channel.take(form) for form in request.arrays}
                self._waiting.put((request, arrays))
                del arrays
        except (EOFError, OSError):
            os._exit(0)
        except MemoryError:
            os._exit(BEYOND_LIMIT)


class _Runner:
    """The plan, and the examples it was last given for training and for evaluation."""

    def __init__(self, request: Open, arrays: Arrays) -> None:
        manifest_bytes = arrays.pop("manifest").tobytes()
        blobs = {digest: arrays.pop(digest).tobytes() for digest in list(arrays)}
        self._plan = Plan(decode_manifest(manifest_bytes), manifest_bytes, MappingProxyType(blobs))
        if is_large(self._plan.manifest):
            give_memory_back()
        self._executor = Executor(
            self._plan, threads=request.threads, keep_memory=request.keep_memory, call_limit_s=request.call_limit_s
        )
        self._data: dict[type[Request], Mapping[str, Array]] = {}

    def run(self, request: Train | Evaluate, arrays: Arrays, cancelled: Callable[[], bool]) -> list[Array]:
        data = {
            name.removeprefix("data/"): arrays.pop(name) for name in list(arrays) if name.startswith("data/")
        } or self._data[type(request)]
        self._data[type(request)] = data if request.keep_data else {}
        if isinstance(request, Evaluate):
            sums = self._executor.evaluate(arrays.pop("theta"), arrays.pop("buffers"), data, cancelled=cancelled)
            return [_sums(sums)]
        result = self._executor.train(
            arrays.pop("theta"),
            self._plan.initial("optimizer_state", copy=False),
            arrays.pop("buffers"),
            data,
            batch_size=request.batch_size,
            epochs=request.epochs,
            learning_rate=request.learning_rate,
            seed=request.seed,
            steps_per_call=request.steps_per_call,
            cancelled=cancelled,
        )
        return [result.theta, result.buffers, _sums(result.metrics)]


def _sums(metrics: Metrics) -> Array:
    return np.array([metrics.examples, *metrics.sums.values()], np.float64)


def _serve(channel: Channel) -> None:
    listener = _Listener(channel)
    opening, arrays = listener.next()
    assert isinstance(opening, Open)
    runner = _Runner(opening, arrays)
    channel.send(Answer(number=opening.number))
    while True:
        _answer(channel, runner, *listener.next(), listener)


def _answer(channel: Channel, runner: _Runner, request: Request, arrays: Arrays, listener: _Listener) -> None:
    assert isinstance(request, Train | Evaluate)
    number = request.number
    try:
        results = runner.run(request, arrays, lambda: listener.is_cancelled(number))
    except PlanError as error:
        if _lacked_memory(error):
            os._exit(BEYOND_LIMIT)
        channel.send(Answer(number=number, error=_kind(error), text=str(error)[:MAX_TEXT]))
    else:
        channel.send(Answer(number=number), results)


def _kind(error: PlanError) -> Any:
    if isinstance(error, UnusableDataError):
        return "data"
    return "cancelled" if isinstance(error, CancelledError) else "execution"


def _lacked_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
            return True
        error = error.__cause__
    return False


def _main(limit_bytes: int) -> None:
    keep_to(limit_bytes)
    channel = Channel(socket.socket(fileno=sys.stdin.fileno()))
    try:
        _serve(channel)
    except OSError:
        os._exit(0)  # the node is gone
    except MemoryError:
        os._exit(BEYOND_LIMIT)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
