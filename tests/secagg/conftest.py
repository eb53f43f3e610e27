"""Everything here runs twice: with the compiled passes over vectors, and with numpy's."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from types import ModuleType

import pytest

from protocol.secagg import passes

NAMES = [name for name in passes.__all__ if name != "COMPILED"]


def passes_of(kind: str) -> ModuleType:
    """The module of one kind; without a compiler on the machine the test is skipped, but not in CI."""
    if kind == "compiled" and not passes.COMPILED and not os.environ.get("CI"):
        pytest.skip("the passes are not compiled here: no C compiler when peerplan was installed")
    return importlib.import_module(f"protocol.secagg.passes.{'_compiled' if kind == 'compiled' else 'arrays'}")


@pytest.fixture(scope="module", autouse=True, params=["compiled", "arrays"])
def chosen_passes(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    module = passes_of(request.param)
    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES:
            patch.setattr(passes, name, getattr(module, name))
        yield module
