"""Read a node's receipts beside the node: no lock is taken and nothing is written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from python_node.errors import StateError
from python_node.receipts import Receipt, open_receipt
from python_node.state.durable import as_state_errors
from python_node.state.identity_file import load_identity

__all__ = ["read_receipts"]


def read_receipts(folder: Path) -> list[Receipt]:
    """The receipts of a state folder, oldest first, each checked to be signed by the folder's node.

    Raises:
        StateError: there is no such folder, or it holds no database or no identity.
        ReceiptError: a receipt was changed, or another node signed it.
    """
    path = folder / "node.db"
    if not path.is_file():
        raise StateError(f"state folder {folder}: holds no node.db; is it a node's?")
    node = load_identity(folder / "identity.key").peer_id
    with (
        as_state_errors(f"state database {path}"),
        closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)) as database,
    ):
        found = database.execute("SELECT envelope FROM receipts ORDER BY seq").fetchall()
    return [open_receipt(envelope, node=node) for (envelope,) in found]
