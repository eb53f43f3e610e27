import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

import plans
from plans import Field
from plans.errors import CancelledError, ExecutionError, UnusableDataError
from plans.watchdog import Watchdog


@pytest.fixture(scope="module")
def heavy():
    """A plan one call of which takes many seconds: half a million steps."""
    torch.manual_seed(0)
    return plans.trace(
        nn.Linear(64, 3),
        loss="cross_entropy",
        optimizer=plans.SGD(lr=1e-6),
        inputs={"x": Field("float32", (64,))},
        targets={"y": Field("int64")},
        name="heavy",
        version="1",
    )


def train(plan, executor, **options):
    state = [plan.initial(role) for role in ("theta", "optimizer_state", "buffers")]
    data = {"x": np.ones((1000, 64), np.float32), "y": np.zeros(1000, np.int64)}
    settings = {"batch_size": 1, "epochs": 500, "learning_rate": 1e-6, "seed": b"s", "steps_per_call": 1_000_000}
    return executor.train(*state, data, **(settings | options))


@pytest.fixture
def watchful(monkeypatch):
    """The watchdog looks often enough to see calls of a few milliseconds."""
    monkeypatch.setattr("plans.watchdog.POLL_S", 0.001)


def test_a_call_is_cancelled_while_it_runs(heavy, watchful):
    def cancelled():
        # only the watchdog asks from another thread than the caller's, so the answer comes during a call
        return threading.current_thread() is not threading.main_thread()

    began = time.monotonic()
    with pytest.raises(CancelledError, match="heavy, train: stopped on the way"):
        train(heavy, plans.Executor(heavy), cancelled=cancelled)
    assert time.monotonic() - began < 10


def test_a_call_that_takes_too_long_is_stopped(heavy):
    executor = plans.Executor(heavy, call_limit_s=0.3)
    executor.evaluate(heavy.initial("theta"), heavy.initial("buffers"), small())
    with pytest.raises(ExecutionError, match=r"heavy, train: took longer than 0.3 s and was stopped"):
        executor.call_train(
            [heavy.initial(role) for role in ("theta", "optimizer_state", "buffers")],
            small(),
            np.zeros((2_000_000, 1), np.int64),
            np.full(2_000_000, 1e-6, np.float32),
            0,
        )
    # the executor is still good
    executor.evaluate(heavy.initial("theta"), heavy.initial("buffers"), small())


def small():
    return {"x": np.ones((4, 64), np.float32), "y": np.zeros(4, np.int64)}


def test_what_a_cancellation_raises_is_not_lost(heavy, watchful):
    def cancelled():
        if threading.current_thread() is threading.main_thread():
            return False
        raise RuntimeError("the asker failed")

    with pytest.raises(CancelledError) as caught:
        train(heavy, plans.Executor(heavy), cancelled=cancelled)
    assert "the asker failed" in str(caught.value.__cause__)


@pytest.mark.parametrize("limit", [0, -1, float("inf"), float("nan")])
def test_limits_out_of_range_are_refused(heavy, limit):
    with pytest.raises(UnusableDataError, match="call_limit_s"):
        plans.Executor(heavy, call_limit_s=limit)


def test_a_watchdog_of_a_call_that_ends_in_time_does_nothing():
    ended = []
    with Watchdog(lambda: ended.append(1), limit_s=60) as watchdog:
        pass
    assert ended == []
    assert watchdog.reason is None
