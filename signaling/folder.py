"""The folder of one signaling server: its identity, database, blobs, and a lock against a second process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from protocol.identity import Identity
from signaling.errors import StoreError

__all__ = ["Folder", "open_folder"]


@dataclass(frozen=True)
class Folder:
    """An open folder; `close` lets another process have it."""

    path: Path
    identity: Identity
    _lock: IO[bytes]

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.path / "signaling.sqlite"

    @property
    def blobs(self) -> Path:
        """The blobs' folder."""
        return self.path / "blobs"

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()


def open_folder(path: Path) -> Folder:
    """Create or open the folder (mode 0700) and lock it.

    Raises:
        StoreError: it cannot be written, or another process has it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (path / "lock").open("ab")
        _take(lock, path)
        return Folder(path, _identity(path / "identity.key"), lock)
    except OSError as error:
        said = "is a file, expected a folder" if isinstance(error, FileExistsError) else error.strerror or str(error)
        raise StoreError(f"{path}: {said}") from None


def _take(lock: IO[bytes], path: Path) -> None:
    if os.name != "posix":
        return  # SQLite's own locks remain; a second process there finds the port taken
    import fcntl  # noqa: PLC0415 (it exists on POSIX alone)

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StoreError(f"{path}: another signaling server uses this folder") from None


def _identity(path: Path) -> Identity:
    try:
        return Identity(path.read_bytes())
    except FileNotFoundError:
        identity = Identity(os.urandom(32))
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(identity.seed())
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    return identity
