"""The plan of the whole folder, traced once, and a world per test."""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog

from examples.digits import build_plan
from python_node.training import LocalTrainer
from tests.e2e.world import PATIENT, World


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
async def make_gate(monkeypatch):
    """`make_gate(free=2)`: no trainer gets beyond its second update before `open`."""
    # trainers that wait at the gate hold a thread each, and all nodes of a test share one pool
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
    made = []

    def make(*, free):
        made.append(Gate(monkeypatch, free=free))
        return made[-1]

    yield make
    for gate in made:
        gate.open()


@pytest.fixture
async def gate(make_gate):
    return make_gate(free=1)


@pytest.fixture(scope="session")
def plan():
    return build_plan()


@pytest.fixture
async def world(tmp_path):
    async with World(tmp_path) as made:
        yield made


@pytest.fixture
async def patient_world(tmp_path):
    """A signaling server that names a cohort, first and later, only once all that there is room for are there."""
    async with World(tmp_path, timing=PATIENT) as made:
        yield made


@pytest.fixture(autouse=True)
def quiet_logs():
    """Only what may matter to a failed test."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()
