"""Write a file whole or not at all."""

from __future__ import annotations

import contextlib
from pathlib import Path

from cli.errors import CommandError

__all__ = ["write_whole"]


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` beside `path` and move it there, so that a killed process leaves no half of it.

    Raises:
        CommandError: the file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the folder itself may be what cannot be written
            partial.unlink(missing_ok=True)
        raise CommandError(f"{path}: cannot be written: {error.strerror or error}", code="bad-file") from error
