"""A plan takes no more memory than an owner allows, whatever its author wrote, and nothing else suffers."""

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import plans
from plans.errors import CancelledError, ExecutionError, HarmfulPlanError, UnusableDataError
from plans.memory_limit import BEYOND_LIMIT, LEAST_LIMIT_BYTES, machine_bytes, usual_limit_bytes
from tests.plans.hostile_plans import ATTACKS, hostile

LIMIT = 384 << 20
WORDS = "403 MB of memory, this node's limit for one run"
SETTINGS = {"batch_size": 4, "epochs": 3, "learning_rate": 0.1, "seed": b"s"}


@pytest.fixture
def bounded():
    """Makes executors, and closes them."""
    made = []

    def make(plan, **options):
        made.append(plans.BoundedExecutor(plan, **({"memory_limit": LIMIT} | options)))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


def start_of(plan):
    return plan.initial("theta"), plan.initial("buffers")


def data_of(examples=14):
    random = np.random.default_rng(0)
    return {"x": random.standard_normal((examples, 6)).astype(np.float32), "label": random.integers(0, 3, examples)}


def peak_bytes(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


class Followed:
    """The most a process had resident, looked at until it ends."""

    def __init__(self, pid):
        self.most, self._pid, self._over = 0, pid, threading.Event()
        self._thread = threading.Thread(target=self._follow)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _follow(self):
        while not self._over.wait(0.002):
            try:
                self.most = max(self.most, peak_bytes(self._pid))
            except (OSError, StopIteration):  # it has ended
                return


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_plan_that_grows_ends_its_process_below_the_limit(plan, bounded, attack):
    harmful = hostile(plan, attack)
    plans.validate(harmful)  # nothing about such a graph is against the rules
    assert sum(map(len, harmful.blobs.values())) < 1 << 20
    executor = bounded(harmful)
    with Followed(executor.process_id) as followed, pytest.raises(HarmfulPlanError) as caught:
        executor.train(*start_of(plan), data_of(), **SETTINGS)
    assert 0 < followed.most <= LIMIT
    # where memory is refused to a part of ONNX Runtime that may not fail, it calls abort()
    assert str(caught.value) in (
        f"plan small: needs more than {WORDS} (max_memory_bytes)",
        f"plan small: the process it ran in was ended by SIGABRT, with at most {WORDS}",
    )


def test_others_go_on_and_the_same_plan_may_be_asked_again(plan, bounded):
    honest, harmful = bounded(plan), bounded(hostile(plan, ATTACKS[0]))
    before = honest.train(*start_of(plan), data_of(), **SETTINGS)
    for _ in range(2):
        with pytest.raises(HarmfulPlanError):
            harmful.train(*start_of(plan), data_of(), **SETTINGS)
    after = honest.train(*start_of(plan), data_of(), **SETTINGS)
    assert np.array_equal(before.theta, after.theta)
    # its other functions hold no attack
    assert harmful.evaluate(*start_of(plan), data_of()) == honest.evaluate(*start_of(plan), data_of())


@pytest.mark.parametrize("keep_data", [True, False])
def test_the_same_bits_as_without_a_limit(plan, bounded, keep_data):
    executor, free = bounded(plan), plans.Executor(plan)
    theta, buffers = start_of(plan)
    data = data_of()
    for _ in range(2):
        expected = free.train(theta, plan.initial("optimizer_state"), buffers, data, **SETTINGS)
        found = executor.train(theta, buffers, data, keep_data=keep_data, **SETTINGS)
        assert np.array_equal(found.theta, expected.theta)
        assert np.array_equal(found.buffers, expected.buffers)
        assert found.metrics == expected.metrics
        assert executor.evaluate(theta, buffers, data, keep_data=keep_data) == free.evaluate(theta, buffers, data)
        assert not np.array_equal(theta, found.theta)
        theta = found.theta


def test_kept_examples_are_not_mistaken_for_others(plan, bounded):
    executor, free = bounded(plan), plans.Executor(plan)
    for examples in (5, 9):
        data = data_of(examples)
        found = executor.evaluate(*start_of(plan), data, keep_data=True)
        assert found == free.evaluate(*start_of(plan), data)
        assert found.examples == examples


def test_errors_are_those_of_a_run_without_a_limit(plan, bounded):
    executor, free = bounded(plan), plans.Executor(plan)
    theta, buffers = start_of(plan)
    wrong = [
        (theta, data_of() | {"x": np.ones((14, 5), np.float32)}, UnusableDataError),
        (theta, data_of() | {"x": np.full((14, 6), np.nan, np.float32)}, UnusableDataError),
        (theta, {"x": np.ones((14, 6), np.float32)}, UnusableDataError),
        (theta[1:], data_of(), UnusableDataError),
        (theta + np.float32(3e38), data_of(), ExecutionError),
    ]
    for vector, data, kind in wrong:
        with pytest.raises(kind) as expected:
            free.train(vector, plan.initial("optimizer_state"), buffers, data, **SETTINGS)
        with pytest.raises(kind) as found:
            executor.train(vector, buffers, data, **SETTINGS)
        assert str(found.value) == str(expected.value)
    assert executor.evaluate(theta, buffers, data_of()).examples == 14


def test_a_call_is_cancelled_while_it_runs_and_the_process_stays(plan, bounded):
    executor = bounded(plan)
    pid = executor.process_id
    asked = []

    def cancelled():
        asked.append(True)
        return len(asked) > 1  # not before it begins

    with pytest.raises(CancelledError, match=r"plan small, train: stopped on the way|training stopped after"):
        executor.train(*start_of(plan), data_of(), cancelled=cancelled, **(SETTINGS | {"epochs": 1_000_000}))
    assert executor.process_id == pid
    assert executor.evaluate(*start_of(plan), data_of(), cancelled=lambda: False).examples == 14
    with pytest.raises(CancelledError, match="called off before it began"):
        executor.evaluate(*start_of(plan), data_of(), cancelled=lambda: True)


def test_what_a_cancellation_raises_is_not_lost(plan, bounded):
    executor = bounded(plan)
    asked = []

    def cancelled():
        asked.append(True)
        if len(asked) > 1:
            raise RuntimeError("the asker failed")
        return False

    with pytest.raises(RuntimeError, match="the asker failed"):
        executor.train(*start_of(plan), data_of(), cancelled=cancelled, **(SETTINGS | {"epochs": 1_000_000}))
    assert executor.evaluate(*start_of(plan), data_of()).examples == 14


def test_a_call_that_nobody_waits_for_ends_with_its_process_if_it_must(plan, bounded, monkeypatch):
    """ONNX Runtime looks between two operators, and this process cannot look at all."""
    monkeypatch.setattr("plans.bounded._GRACE_S", 0.0)
    executor = bounded(plan)
    pid = executor.process_id
    os.kill(pid, signal.SIGSTOP)
    asked = []

    def cancelled():
        asked.append(True)
        return len(asked) > 1

    with pytest.raises(CancelledError, match="stopped on the way, with its process"):
        executor.evaluate(*start_of(plan), data_of(), cancelled=cancelled)
    assert executor.evaluate(*start_of(plan), data_of()).examples == 14
    assert executor.process_id != pid


def test_a_process_that_the_system_ends_is_one_error(plan, bounded):
    executor = bounded(plan)
    os.kill(executor.process_id, signal.SIGKILL)
    words = "was ended by SIGKILL, as systems do when memory runs out, below 403 MB of memory, this node's limit"
    with pytest.raises(HarmfulPlanError, match=words):
        executor.train(*start_of(plan), data_of(), **SETTINGS)
    assert executor.evaluate(*start_of(plan), data_of()).examples == 14


def test_closing_ends_a_call_and_the_process(plan, bounded):
    executor = bounded(plan)
    pid = executor.process_id
    asked = threading.Event()

    def cancelled():
        asked.set()
        return False

    def close():
        assert asked.wait(60)
        executor.close()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(CancelledError, match="plan small: this node has left its run"):
        executor.train(*start_of(plan), data_of(), cancelled=cancelled, **(SETTINGS | {"epochs": 1_000_000}))
    closing.join()
    with pytest.raises(CancelledError, match="this node has left its run"):
        executor.evaluate(*start_of(plan), data_of())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


NODE = """
import sys, threading, numpy as np, plans
plan = plans.load(sys.argv[1])
executor = plans.BoundedExecutor(plan, memory_limit=1 << 30)
def told():
    print(executor.process_id, flush=True)
    return False
data = {"x": np.ones((4, 6), np.float32), "label": np.zeros(4, np.int64)}
executor.train(plan.initial("theta"), plan.initial("buffers"), data, batch_size=1, epochs=10_000_000, seed=b"s",
               learning_rate=1e-9, cancelled=told)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for another's process, which Linux alone can")
def test_nothing_is_left_when_the_node_is_killed(plan, tmp_path):
    path = os.pathsep.join(sys.path)
    node = subprocess.Popen(
        [sys.executable, "-c", NODE, plan.save(tmp_path / "small.plan")],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
    )
    pid = int(node.stdout.readline())
    ended = os.pidfd_open(pid)
    node.kill()
    node.communicate()
    watch = select.poll()
    watch.register(ended, select.POLLIN)
    assert watch.poll(60_000)
    os.close(ended)


def test_more_examples_than_memory_are_one_error(plan, bounded):
    executor = bounded(plan)
    data = {"x": np.zeros((20_000_000, 6), np.float32), "label": np.zeros(20_000_000, np.int64)}
    with pytest.raises(HarmfulPlanError, match="needs more than 403 MB"):
        executor.evaluate(*start_of(plan), data)


def test_a_limit_in_which_nothing_can_run_is_refused(plan):
    with pytest.raises(UnusableDataError, match=f"expected at least {LEAST_LIMIT_BYTES}"):
        plans.BoundedExecutor(plan, memory_limit=LEAST_LIMIT_BYTES - 1)


def test_by_default_a_run_may_take_half_of_the_machine():
    assert 0 < machine_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert usual_limit_bytes() == max(LEAST_LIMIT_BYTES, machine_bytes() // 2)


@pytest.mark.parametrize(("text", "most"), [("123456789\n", 123456789), ("max\n", None), (None, None)])
def test_a_container_that_has_less_counts(tmp_path, monkeypatch, text, most):
    file = tmp_path / "memory.max"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr("plans.memory_limit._GROUP_LIMIT", file)
    assert machine_bytes() == (most or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


GROWS = """
import sys
import plans.memory_limit as limit
held = []
limit.end_beyond(300 << 20, taken_bytes=lambda: sum(map(len, held)))
while True:
    held.append(bytes(1 << 20))
"""


def test_where_the_system_refuses_nothing_a_thread_ends_the_process():
    done = subprocess.run([sys.executable, "-c", GROWS], check=False, timeout=120)
    assert done.returncode == BEYOND_LIMIT
