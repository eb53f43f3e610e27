"""An identity lent to a session that is not a node's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protocol.identity import Identity
from python_node.errors import FolderInUseError, IdentityInUseError
from python_node.state.durable import as_state_errors
from python_node.state.folder_lock import FolderLock
from python_node.state.identity_file import load_identity

__all__ = ["lent_identity"]

_STATE = "node.db"
"""What a folder has that is a node's."""


@contextmanager
def lent_identity(path: Path) -> Iterator[Identity]:
    """Read an identity for one session, in a `with` block around that session.

    A newer session of an identity ends the older one (spec 03 §3.4). So a key in a node's state folder is lent only
    while no process has that folder open, and no node starts there within the block.

    Raises:
        IdentityInUseError: a process has the key's state folder open.
        StateError: the file cannot be read as an identity.
    """
    identity = load_identity(path)
    folder = path.resolve().parent
    if not (folder / _STATE).exists():
        yield identity
        return
    with as_state_errors(f"state folder {folder}"):
        try:
            lock = FolderLock(folder)
        except FolderInUseError as error:
            raise IdentityInUseError(
                f"identity {path}: in use by the node of {error.holder}, whose session another one would end; stop "
                f"that node first, or see its runs by: peerplan receipts --state {folder}"
            ) from None
    try:
        yield identity
    finally:
        lock.release()
