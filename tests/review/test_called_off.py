"""Local work that is called off ends, whichever of the author's graphs it is in."""

import threading
import time

import pytest

from plans import Executor
from plans.errors import CancelledError
from python_node.datasets import Dataset
from python_node.membership import initial_model
from python_node.training import LocalTrainer
from tests.e2e.data import examples
from tests.e2e.world import terms


def test_an_evaluation_is_stopped_during_its_call(plan, monkeypatch):
    monkeypatch.setattr("plans.watchdog.POLL_S", 0.001)
    data = examples(1, 200_000)
    own = threading.get_ident()

    def cancelled():
        return threading.get_ident() != own  # the watchdog asks during a call, from a thread of its own

    executor = Executor(plan)
    began = time.monotonic()
    with pytest.raises(CancelledError, match="evaluate: stopped on the way"):
        executor.evaluate(plan.initial("theta"), plan.initial("buffers"), data, batch_size=1024, cancelled=cancelled)
    assert time.monotonic() - began < 10


def test_an_attempt_that_is_over_after_training_is_not_evaluated(plan):
    whole = examples(1)
    dataset = Dataset(name="digits", arrays=whole, holdout=whole)
    trainer = LocalTrainer(plan, terms(plan), dataset, threads=1, node_seed=bytes(32))
    over = False
    real = trainer.train

    def train(*args, **options):
        nonlocal over
        try:
            return real(*args, **options)
        finally:
            over = True

    trainer.train = train
    with pytest.raises(CancelledError, match="called off before it began"):
        trainer.update(initial_model(plan), "ab" * 32, cancelled=lambda: over)
