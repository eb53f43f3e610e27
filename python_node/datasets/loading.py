"""From a file or function to a checked `Dataset`, and from an owner's TOML file to all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from python_node.datasets.dataset import Array, Dataset, check_arrays, check_finite, is_name, split
from python_node.datasets.entry_point import call_entry_point, is_entry_point
from python_node.datasets.npz import load_npz
from python_node.datasets.table import ColumnGroup, load_csv
from python_node.errors import DatasetError, OwnerFileError
from python_node.owner_files import read_owner_file, refuse_unknown_keys

__all__ = ["MAX_DATASET_BYTES", "load_dataset", "load_datasets_file"]

MAX_DATASET_BYTES = 4 << 30


def load_dataset(
    name: str,
    source: str | Path,
    *,
    columns: Mapping[str, ColumnGroup] | None = None,
    ignore: Sequence[str] = (),
    holdout_fraction: float = 0.0,
    max_bytes: int = MAX_DATASET_BYTES,
) -> Dataset:
    """Load `source` (a .npz file, a .csv file or `package.module:function`) as dataset `name`.

    `columns` and `ignore` arrange the columns of a .csv file and belong to no other source. `holdout_fraction`
    (0 <= f < 1) of the examples is kept for evaluation. `max_bytes` bounds the file and the arrays made of it.

    Raises:
        DatasetError: names the source, the field and the first bad place.
    """
    if not is_name(name):
        raise DatasetError(f"dataset name {name[:128]!r}: expected letters, digits and . _ / - (128 at most)")
    arrays = _load(str(source), columns=columns, ignore=ignore, max_bytes=max_bytes)
    check_arrays(arrays, where=str(source))
    check_finite(arrays, where=str(source))
    training, holdout = split(arrays, holdout_fraction, where=str(source))
    return Dataset(name, training, holdout)


def _load(
    source: str, *, columns: Mapping[str, ColumnGroup] | None, ignore: Sequence[str], max_bytes: int
) -> dict[str, Array]:
    suffix = Path(source).suffix.lower()
    if suffix != ".csv" and (columns or ignore):
        raise DatasetError(f"{source}: only the columns of a .csv file can be grouped or ignored")
    try:
        if suffix == ".csv":
            return load_csv(Path(source), columns=columns, ignore=ignore, max_bytes=max_bytes)
        if suffix == ".npz":
            return load_npz(Path(source), max_bytes=max_bytes)
    except OSError as error:
        raise DatasetError(f"{source}: cannot be read: {error.strerror or error}") from None
    if is_entry_point(source):
        return call_entry_point(source, max_bytes=max_bytes)
    raise DatasetError(f"{source}: expected a .npz file, a .csv file or package.module:function")


class _FieldTable(msgspec.Struct, frozen=True, kw_only=True):
    columns: list[str]
    dtype: str = "float32"
    shape: list[int] | None = None


class _DatasetTable(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    holdout: float = 0.0
    ignore: list[str] = []
    fields: dict[str, _FieldTable] = {}


def load_datasets_file(path: Path) -> list[Dataset]:
    """Load every dataset of an owner's TOML file, in its order; file names are relative to the file's folder.

    Raises:
        OwnerFileError: the file is not readable TOML, or has a key or value that means nothing.
        DatasetError: a dataset it names cannot be loaded.
    """
    document = read_owner_file(path, what="datasets file")
    refuse_unknown_keys(document, ["datasets"], where=f"datasets file {path}")
    tables = document.get("datasets", {})
    if not isinstance(tables, dict) or not tables:
        raise OwnerFileError(f"datasets file {path}: expected tables named [datasets.NAME]")
    return [_load_table(name, table, path) for name, table in tables.items()]


def _load_table(name: str, document: Any, path: Path) -> Dataset:
    table = _parse_table(document, f"datasets file {path}: [datasets.{name}]")
    source = table.source if is_entry_point(table.source) else path.parent / table.source
    groups = {
        field: ColumnGroup(columns=group.columns, dtype=group.dtype, shape=group.shape)
        for field, group in table.fields.items()
    }
    return load_dataset(name, source, columns=groups, ignore=table.ignore, holdout_fraction=table.holdout)


def _parse_table(document: Any, where: str) -> _DatasetTable:
    if isinstance(document, dict):
        refuse_unknown_keys(document, _DatasetTable.__struct_fields__, where=where)
        fields = document.get("fields", {})
        for field, group in fields.items() if isinstance(fields, dict) else ():
            if isinstance(group, dict):
                refuse_unknown_keys(group, _FieldTable.__struct_fields__, where=f"{where} fields.{field}")
    try:
        return msgspec.convert(document, _DatasetTable)
    except msgspec.ValidationError as error:
        raise OwnerFileError(f"{where}: {error}") from None
