"""Numbered migrations of the signaling server's database; `PRAGMA user_version` is the last one applied."""

from __future__ import annotations

import sqlite3
from importlib import resources

from signaling.errors import StoreError

__all__ = ["migrate"]


def migrate(database: sqlite3.Connection) -> None:
    """Apply what is missing, each migration in one transaction.

    Raises:
        StoreError: the database was written by a newer version.
    """
    folder = resources.files("signaling.schema")
    scripts = sorted((int(item.name[:4]), item) for item in folder.iterdir() if item.name.endswith(".sql"))
    (at,) = database.execute("PRAGMA user_version").fetchone()
    newest = scripts[-1][0]
    if at > newest:
        raise StoreError(f"the database is at migration {at}; this version knows {newest} at most")
    for number, script in scripts:
        if number > at:
            database.executescript(f"BEGIN;{script.read_text()}PRAGMA user_version = {number};COMMIT;")
