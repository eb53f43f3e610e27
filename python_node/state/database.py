"""The node's SQLite database: one connection behind a lock, WAL, every commit on disk before it returns."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from python_node.errors import StateError
from python_node.state.durable import as_state_errors

__all__ = ["Database"]


class Database:
    """Opened and brought up to date at construction; usable from any thread."""

    def __init__(self, path: Path) -> None:
        """Open or create it.

        Raises:
            StateError: it cannot be opened, is no database, or was written by a newer version.
        """
        self._what = f"state database {path}"
        self._lock = threading.RLock()
        with as_state_errors(self._what):
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                self._migrate()
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Close it; a second time does nothing."""
        with self._lock, as_state_errors(self._what):
            self._connection.close()

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement, durable on return, and give its rows.

        Raises:
            StateError: the disk is full, or the database is closed or broken.
        """
        with self._lock, as_state_errors(self._what):
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside happens or none of it.

        Raises:
            StateError: as `rows`.
        """
        with self._lock, as_state_errors(self._what):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite rolls back by itself when the disk is full
                    self._connection.execute("ROLLBACK")
                raise

    def _migrate(self) -> None:
        """Apply the numbered migrations that are missing, each in one transaction."""
        folder = resources.files("python_node.state") / "migrations"
        scripts = sorted((int(item.name[:4]), item) for item in folder.iterdir() if item.name.endswith(".sql"))
        (at,) = self._connection.execute("PRAGMA user_version").fetchone()
        newest = scripts[-1][0]
        if at > newest:
            raise StateError(f"{self._what}: is at migration {at}; this version knows {newest} at most")
        for number, script in scripts:
            if number > at:
                text = script.read_text(encoding="utf-8")
                self._connection.executescript(f"BEGIN;{text}PRAGMA user_version = {number};COMMIT;")
