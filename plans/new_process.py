"""Start one of this package's modules as a process of its own, which finds packages where this one does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from plans.errors import ExecutionError

__all__ = ["start_module"]


def start_module(
    module: str, *words: str, what: str, settings: Mapping[str, str] = MappingProxyType({}), **options: Any
) -> subprocess.Popen[bytes]:
    """Start `python -m module words...`; `settings` are more variables of its environment, `options` are
    those of `Popen`, and `what` begins an error's text.

    Raises:
        ExecutionError: the system does not start it.
    """
    command = [sys.executable, "-P", "-m", module, *words]
    known = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if isinstance(path, str))}
    try:
        return subprocess.Popen(command, env={**os.environ, **known, **settings}, **options)
    except OSError as error:
        raise ExecutionError(f"{what}: the process to run it in does not start: {error}") from error
