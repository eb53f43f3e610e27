"""The file of an identity: 64 hexadecimal digits and a newline, mode 0600. Its content is in no error or log."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from protocol.identity import Identity
from python_node.errors import StateError
from python_node.state.durable import as_state_errors, sync_folder, write_aside

__all__ = ["load_identity", "load_or_create_identity"]

_SEED_BYTES = 32
_CONTENT = re.compile(rb"([0-9a-f]{64})\n?")


def load_identity(path: Path) -> Identity:
    """Read an identity.

    Raises:
        StateError: the file is missing, others may read or write it, or it holds no identity.
    """
    with as_state_errors(f"identity {path}"), path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
            raise StateError(
                f"identity {path}: others may use this key (mode {stat.S_IMODE(mode):04o}, expected 0600); "
                f"run: chmod 600 {path}"
            )
        content = _CONTENT.fullmatch(file.read(2 * _SEED_BYTES + 2))
    if content is None:
        raise StateError(
            f"identity {path}: expected 64 lower-case hexadecimal digits and a newline, and nothing else"
        )
    return Identity(bytes.fromhex(content[1].decode("ascii")))


def load_or_create_identity(path: Path) -> Identity:
    """Read an identity, or make one from the operating system's generator where the file is missing.

    Two processes that start at once end with the same identity: the file is linked into place whole, and the second
    link fails.

    Raises:
        StateError: as `load_identity`, or the file cannot be written.
    """
    with as_state_errors(f"identity {path}"):
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial = write_aside(path, os.urandom(_SEED_BYTES).hex().encode("ascii") + b"\n")
            try:
                os.link(partial, path)
                sync_folder(path.parent)
            except (FileExistsError, FileNotFoundError):
                pass  # another process was first (and may have swept ours); its identity is read below
            finally:
                partial.unlink(missing_ok=True)
    return load_identity(path)
