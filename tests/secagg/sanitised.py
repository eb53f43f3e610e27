"""Run `test_passes.py` with another build of the extension: `python -m tests.secagg.sanitised PATH`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

NAME = "protocol.secagg.passes._compiled"


def main(path: str) -> int:
    spec = importlib.util.spec_from_file_location(NAME, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[NAME] = module
    tests = Path(__file__).with_name("test_passes.py")
    return pytest.main(
        [str(tests), "-q", "-k", "compiled and not (sanitisers or flags or revision)", "-p", "no:cacheprovider"]
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
