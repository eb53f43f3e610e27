"""A node's policy and datasets from options and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cli.errors import USAGE, CommandError
from python_node.datasets import Dataset, load_dataset, load_datasets_file
from python_node.errors import PolicyError
from python_node.policy import Policy

__all__ = ["build_policy", "load_data"]


def build_policy(
    path: Path | None,
    *,
    authors: Sequence[str],
    min_cohort: int | None,
    min_survivors: int | None,
    max_memory_mib: int | None,
) -> Policy:
    """The policy of a file, or the careful default, with what options say in place of what it says.

    Raises:
        PolicyError: the file or an option says something a policy may not say.
    """
    base = Policy() if path is None else Policy.load(path)
    said: dict[str, Any] = {
        "min_cohort": min_cohort,
        "min_survivors": min_survivors,
        "max_memory_bytes": None if max_memory_mib is None else max_memory_mib << 20,
        "authors": list(authors) or None,
    }
    changes = {key: value for key, value in said.items() if value is not None}
    try:
        return msgspec.convert(msgspec.structs.asdict(base) | changes, Policy)
    except msgspec.ValidationError as error:
        raise PolicyError(f"policy: {error}") from None


def load_data(sources: Sequence[str], file: Path | None, *, holdout: float) -> list[Dataset]:
    """Datasets of a file, then those of `NAME=SOURCE` options.

    Raises:
        CommandError: none at all, an option of another form, or a name twice.
        DatasetError, OwnerFileError: a source or the file cannot be loaded.
    """
    if not sources and file is None:
        raise CommandError("no data: give --data NAME=SOURCE or --datasets FILE", code="usage", exit_status=USAGE)
    loaded = [] if file is None else load_datasets_file(file)
    for entry in sources:
        name, equals, source = entry.partition("=")
        if not equals or not name or not source:
            raise CommandError(f"--data {entry!r}: expected NAME=SOURCE", code="usage", exit_status=USAGE)
        loaded.append(load_dataset(name, source, holdout_fraction=holdout))
    names = [dataset.name for dataset in loaded]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CommandError(f"dataset {', '.join(twice)} is given twice", code="usage", exit_status=USAGE)
    return loaded
