"""What a command prints: JSON lines or text on stdout, logs and errors on stderr."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import numpy as np
import structlog
from rich.console import Console
from rich.markup import escape

__all__ = ["configure_logs", "console", "print_json", "to_json"]

LOG_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def to_json(value: object) -> str:
    """One line of JSON; NaN and infinity become null, since JSON has neither."""
    return msgspec.json.encode(value, enc_hook=_plain).decode("utf-8")


def print_json(value: object) -> None:
    """Print one line of JSON to stdout at once."""
    sys.stdout.write(to_json(value) + "\n")
    sys.stdout.flush()


def console(*, stderr: bool = False) -> Console:
    """A terminal, or plain text of any width where stdout is a file or a pipe."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not made.is_terminal:
        made.width = 160
    return made


def text(value: object) -> str:
    """A value as rich text shows it, with nothing in it taken as markup."""
    return escape(str(value))


def configure_logs(level: str, *, as_json: bool) -> None:
    """Send structured logs to stderr: JSON lines for programs, coloured lines for a terminal."""
    pretty = not as_json and sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks if not pretty else structlog.processors.StackInfoRenderer(),
            structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(serializer=_serialise),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LOG_LEVELS[level]),
        # looked up per line: a live display replaces sys.stderr while it draws
        logger_factory=lambda *_args: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _serialise(value: object, **_options: Any) -> str:
    return to_json(value)


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)
