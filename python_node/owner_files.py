"""TOML files an owner writes: read with bounds, unknown keys refused with the list of known ones."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from python_node.errors import OwnerFileError

__all__ = ["MAX_OWNER_FILE_BYTES", "read_owner_file", "refuse_unknown_keys"]

MAX_OWNER_FILE_BYTES = 1 << 20


def read_owner_file(path: Path, *, what: str, error: type[OwnerFileError] = OwnerFileError) -> dict[str, Any]:
    """Parse a TOML file of at most 1 MiB; `what` names its purpose in errors.

    Raises:
        OwnerFileError: the file cannot be read, may be written by anybody on this machine, or is no TOML.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_OWNER_FILE_BYTES + 1)
    except OSError as cause:
        raise error(f"{what} {path}: cannot be read: {cause.strerror}") from None
    if os.name == "posix" and mode & stat.S_IWOTH:
        raise error(f"{what} {path}: anybody on this machine may write it; run: chmod o-w {path}")
    if len(data) > MAX_OWNER_FILE_BYTES:
        raise error(f"{what} {path}: larger than {MAX_OWNER_FILE_BYTES} bytes")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise error(f"{what} {path}: is no TOML: {cause}") from None


def refuse_unknown_keys(
    table: Mapping[str, object], known: Iterable[str], *, where: str, error: type[OwnerFileError] = OwnerFileError
) -> None:
    """Refuse keys that mean nothing: a misspelt limit would otherwise be no limit.

    Raises:
        OwnerFileError: names the unknown keys and the known ones.
    """
    known = sorted(known)
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise error(f"{where}: unknown key {', '.join(unknown)}; known keys are {', '.join(known)}")
