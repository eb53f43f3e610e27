"""The plan of the whole folder, traced once, and a world per test."""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog

from examples.digits import build_plan
from python_node.training import LocalTrainer
from tests.e2e.world import World


class Gate:
    """Lets every trainer through `free` times, then holds it until `open`."""

    def __init__(self, monkeypatch, *, free: int) -> None:
        self._opened = threading.Event()
        self._left: dict[int, int] = {}
        real = LocalTrainer.update

        def update(trainer, *arguments, **options):
            left = self._left.setdefault(id(trainer), free)
            self._left[id(trainer)] = left - 1
            if left <= 0:
                assert self._opened.wait(30), "the test never opened the gate"
            return real(trainer, *arguments, **options)

        monkeypatch.setattr(LocalTrainer, "update", update)

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
async def gate(monkeypatch):
    # trainers that wait at the gate hold a thread each, and all nodes of a test share one pool
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
    made = Gate(monkeypatch, free=1)
    yield made
    made.open()


@pytest.fixture(scope="session")
def plan():
    return build_plan()


@pytest.fixture
async def world(tmp_path):
    async with World(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def quiet_logs():
    """Only what may matter to a failed test."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()
