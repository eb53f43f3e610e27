"""Datasets from .csv files: a header row, then one example a row; columns are scalars or grouped into arrays."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from python_node.datasets.dataset import DTYPES, MAX_FIELDS, Array
from python_node.errors import DatasetError

__all__ = ["ColumnGroup", "load_csv"]

_TRUTH = {"0": 0, "1": 1, "false": 0, "true": 1}
_RANGES: dict[str, tuple[float, float]] = {
    "uint8": (0, 255),
    "int32": (-(1 << 31), (1 << 31) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "float32": (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)),
    "float64": (float(np.finfo(np.float64).min), float(np.finfo(np.float64).max)),
}


@dataclass(frozen=True, kw_only=True)
class ColumnGroup:
    """Columns that become one field.

    `columns` are names or shell patterns ("pixel_*"); matches of a pattern stand in the order of the file's header.
    `shape` is that of one example, row by row; None is a vector of all columns, () a scalar of one column.
    """

    columns: Sequence[str]
    dtype: str = "float32"
    shape: Sequence[int] | None = None


def load_csv(
    path: Path, *, columns: Mapping[str, ColumnGroup] | None = None, ignore: Sequence[str] = (), max_bytes: int
) -> dict[str, Array]:
    """Fields of a UTF-8 .csv file.

    A column in no group is a scalar field of its own name: int64 where every cell is an integer, else float32.
    Columns that match a name or pattern in `ignore` are left out.

    Raises:
        DatasetError: a cell, row or header that does not fit; names row, column and what was expected.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise DatasetError(f"{path}: {size} bytes, at most {max_bytes} are loaded")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read(csv.reader(file, strict=True), path, columns or {}, ignore, max_bytes)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: is no UTF-8 .csv file: {error}") from None


def _read(
    rows: Iterator[list[str]],
    path: Path,
    groups: Mapping[str, ColumnGroup],
    ignore: Sequence[str],
    max_bytes: int,
) -> dict[str, Array]:
    header = next(rows, None)
    if not header:
        raise DatasetError(f"{path}: row 1 is empty, expected a header with the names of the columns")
    fields = _plan_fields(header, path, groups, ignore)
    line = getattr(rows, "line_num", 1)
    taken = 0
    for row in rows:
        start, line = line + 1, getattr(rows, "line_num", line + 1)
        if not row:
            continue  # a blank line, as editors leave at the end
        if len(row) != len(header):
            raise DatasetError(
                f"{path}: row {start} has {len(row)} columns, expected {len(header)} as in the header"
                + _separator(header)
            )
        for field in fields:
            taken += field.add(row, start)
        if taken > max_bytes:
            raise DatasetError(f"{path}: its values take more than {max_bytes} bytes (reached in row {start})")
    return {field.name: field.finish() for field in fields}


def _separator(header: list[str]) -> str:
    """A word on files that separate by something else than commas."""
    other = next((name for sign, name in ((";", "semicolons"), ("\t", "tabs")) if sign in header[0]), None)
    return "" if other is None else f"; the header has {other}, a .csv file separates by commas"


def _plan_fields(
    header: list[str], path: Path, groups: Mapping[str, ColumnGroup], ignore: Sequence[str]
) -> list[_Field]:
    if len(set(header)) < len(header):
        repeated = next(name for name in header if header.count(name) > 1)
        raise DatasetError(f"{path}: column {repeated!r} stands twice in the header")
    owner = dict.fromkeys(_matches(header, ignore, f"{path}: ignore"), "ignore")
    fields: list[_Field] = []
    for name, group in groups.items():
        where = f"{path}: field {name!r}"
        wanted = _matches(header, group.columns, where)
        for column in wanted:
            if column in owner:
                raise DatasetError(f"{where}: column {header[column]!r} is already taken by {owner[column]!r}")
            owner[column] = name
        fields.append(_Field(name, group.dtype, _shape(group, len(wanted), where), wanted, header, path))
    scalars = [column for column in range(len(header)) if column not in owner]
    for column in scalars:
        if header[column] in groups:
            raise DatasetError(f"{path}: field {header[column]!r} is a group and also a column outside it")
    if not 1 <= len(fields) + len(scalars) <= MAX_FIELDS:
        raise DatasetError(
            f"{path}: {len(fields) + len(scalars)} fields, expected 1 to {MAX_FIELDS}; group columns into one field"
        )
    return fields + [_Field(header[column], None, (), [column], header, path) for column in scalars]


def _matches(header: list[str], patterns: Sequence[str], where: str) -> list[int]:
    found: dict[int, None] = {}
    for pattern in patterns:
        if pattern in header:
            hits = [header.index(pattern)]
        else:
            hits = [i for i, name in enumerate(header) if fnmatchcase(name, pattern)]
        if not hits:
            shown = ", ".join(header[:8]) + (", ..." if len(header) > 8 else "")
            raise DatasetError(f"{where}: no column matches {pattern!r}; the file has {shown}")
        found |= dict.fromkeys(hits)
    return list(found)


def _shape(group: ColumnGroup, count: int, where: str) -> tuple[int, ...]:
    if group.dtype not in DTYPES:
        raise DatasetError(f"{where}: dtype {group.dtype!r}, expected one of {', '.join(DTYPES)}")
    if count == 0:
        raise DatasetError(f"{where}: lists no columns")
    shape = (count,) if group.shape is None else tuple(group.shape)
    if min(shape, default=1) < 1 or math.prod(shape) != count:
        raise DatasetError(f"{where}: shape {list(shape)} does not hold its {count} columns")
    return shape


class _Field:
    """Cells of one field, parsed as rows come. `dtype` None starts as int64 and widens to float32."""

    def __init__(
        self, name: str, dtype: str | None, shape: tuple[int, ...], columns: list[int], header: list[str], path: Path
    ) -> None:
        self.name = name
        self._dtype = dtype or "int64"
        self._may_widen = dtype is None
        self._shape = shape
        self._columns = columns
        self._header = header
        self._path = path
        self._whole = not self._dtype.startswith("float")
        self._values: array[int] | array[float] = array("q" if self._whole else "d")

    def add(self, row: list[str], number: int) -> int:
        """Take this field's cells of one row; gives the bytes they take."""
        cells = [row[column] for column in self._columns]
        values = self._parse(cells)
        if values is None and self._may_widen and self._whole:
            self._widen()
            values = self._parse(cells)
        if values is None:
            raise DatasetError(self._explain(cells, number))
        self._values.extend(values)  # type: ignore[arg-type]  # `_parse` gives ints where the array holds ints
        return 8 * len(cells)

    def _parse(self, cells: list[str]) -> list[int] | list[float] | None:
        """The cells' numbers, or None where one of them is no number of this dtype."""
        text = "".join(cells)
        if "_" in text or not text.isascii():  # Python reads "1_0" and other scripts' digits; other languages do not
            return None
        if self._dtype == "bool":
            truths = [_TRUTH.get(cell.strip().lower(), -1) for cell in cells]
            return None if -1 in truths else truths
        low, high = _RANGES[self._dtype]
        try:
            numbers = list(map(int if self._whole else float, cells))
        except ValueError:
            return None
        if any(number != number for number in numbers):  # noqa: PLR0124  # NaN alone differs from itself
            return None
        return numbers if low <= min(numbers) and max(numbers) <= high else None

    def _explain(self, cells: list[str], number: int) -> str:
        bad = next(i for i, cell in enumerate(cells) if self._parse([cell]) is None)
        expected = "a finite number" if self._may_widen else self._dtype
        return (
            f"{self._path}: row {number}, column {self._header[self._columns[bad]]!r}: "
            f"expected {expected}, got {cells[bad][:40]!r}"
        )

    def _widen(self) -> None:
        self._dtype, self._whole = "float32", False
        self._values = array("d", self._values)

    def finish(self) -> Array:
        values = np.frombuffer(self._values, dtype=np.int64 if self._whole else np.float64)
        return values.astype(self._dtype).reshape(-1, *self._shape)
