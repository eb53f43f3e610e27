"""A plan from a bundle on disk or from an author's Python function."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import plans
from cli.errors import USAGE, CommandError
from plans import Plan, PlanError

__all__ = ["load_plan"]

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_SCRIPT = re.compile(r"(?P<path>[\w/]+)\.py(:(?P<function>\w+))?")
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def load_plan(source: str) -> Plan:
    """The plan at a path, or what `package.module:function` gives; the current folder is searched first.

    Raises:
        CommandError: the function cannot be imported, fails, or gives something else.
        PlanError, ProtocolError: the bundle or the traced plan is refused.
    """
    script = _SCRIPT.fullmatch(source)
    if script is not None:
        words = f"{script['path'].replace('/', '.')}:{script['function'] or 'build_plan'}"
        raise CommandError(
            f"{source}: expected a bundle or MODULE:FUNCTION, for example {words}", code="usage", exit_status=USAGE
        )
    if _MODULE.fullmatch(source) and not source.endswith(".plan") and not Path(source).exists():
        raise CommandError(
            f"{source}: no bundle there; of a Python module name the function too, as in {source}:build_plan",
            code="bad-bundle",
        )
    if Path(source).exists() or not _FUNCTION.fullmatch(source):
        return plans.load(source)
    module_name, _, function_name = source.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ImportError as error:
        raise CommandError(f"{source}: cannot be imported: {error}", code="bad-function") from error
    except AttributeError:
        raise CommandError(
            f"{source}: module {module_name} has no {function_name}", code="usage", exit_status=USAGE
        ) from None
    try:
        made = function()
    except PlanError:
        raise
    except ModuleNotFoundError as error:
        raise CommandError(
            f"{source}: {error}; tracing needs torch: pip install 'peerplan[author]'", code="bad-function"
        ) from error
    except Exception as error:  # the author's code may raise anything; --debug shows where
        raise CommandError(f"{source}: raised {type(error).__name__}: {error}", code="bad-function") from error
    if not isinstance(made, Plan):
        raise CommandError(f"{source}: gave {type(made).__name__}, expected a plan", code="bad-function")
    return made
