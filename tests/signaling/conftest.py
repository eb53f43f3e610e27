from __future__ import annotations

import pytest

from signaling import Limits, SignalingConfig, Timing, serve
from tests.signaling.world import QUICK, World


@pytest.fixture
async def world(tmp_path):
    async with World(SignalingConfig(folder=tmp_path / "signal", port=0, timing=QUICK)) as world:
        yield world


@pytest.fixture
def make_world(tmp_path):
    def make(*, timing: Timing = QUICK, limits: Limits | None = None, **options) -> World:
        return World(
            SignalingConfig(folder=tmp_path / "signal", port=0, timing=timing, limits=limits or Limits(), **options)
        )

    return make


__all__ = ["serve"]
