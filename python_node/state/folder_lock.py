"""One process per state folder: two nodes of one identity would answer each other's rounds."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO

from python_node.errors import FolderInUseError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["FolderLock"]

_PID_DIGITS = 20


class FolderLock:
    """Held from construction to `release`; the operating system releases it when the process dies."""

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            FolderInUseError: another process (or another `FolderLock`) holds it.
            OSError: the lock file cannot be opened.
        """
        self._file: IO[bytes] = os.fdopen(os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        try:
            _take(self._file.fileno())
        except (BlockingIOError, PermissionError):
            holder = _holder(self._file)
            self._file.close()
            raise FolderInUseError(folder, holder) from None
        self._file.truncate()
        self._file.write(str(os.getpid()).encode("ascii"))
        self._file.flush()

    def release(self) -> None:
        """Give the folder free."""
        self._file.close()


def _take(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, _PID_DIGITS, os.SEEK_SET)  # a byte after the process id, which stays readable
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(file: IO[bytes]) -> str:
    file.seek(0)
    written = file.read(_PID_DIGITS)
    return f"process {written.decode('ascii')}" if written.isdigit() else "another process"
