"""The plan of the whole folder, traced once, and a world per test."""

import logging

import pytest
import structlog

from examples.digits import build_plan
from tests.e2e.world import World


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
