"""Files that are whole or absent whenever the process is killed: write aside, fsync, rename, fsync the folder."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from python_node.errors import StateError

__all__ = ["PARTIAL_SUFFIX", "as_state_errors", "sync_folder", "write_aside", "write_durably"]

PARTIAL_SUFFIX = ".partial"


@contextmanager
def as_state_errors(what: str) -> Iterator[None]:
    """Turn a full disk, a read-only folder or a broken database into one `StateError` that says `what` failed."""
    try:
        yield
    except OSError as error:
        raise StateError(f"{what}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise StateError(f"{what}: {error}") from error


def write_durably(path: Path, data: bytes | memoryview) -> None:
    """Replace `path` by `data`, on disk when this returns; readable by this account alone.

    Raises:
        OSError: nothing changed.
    """
    partial = write_aside(path, data)
    try:
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_aside(path: Path, data: bytes | memoryview) -> Path:
    """Write and fsync a partial file beside `path`, mode 0600; gives its path.

    Raises:
        OSError: no file is left.
    """
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=PARTIAL_SUFFIX, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            Path(name).unlink()
        raise
    return Path(name)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` durable."""
    if os.name != "posix":  # Windows has no handle of a folder to flush; NTFS journals names itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
