"""What a released model reads, from a .npz or .csv file, checked against the model's own inputs."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from cli.errors import USAGE, CommandError
from python_node.datasets import ColumnGroup, load_dataset

__all__ = ["ModelInput", "load_inputs", "parse_fields"]

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """One input of a model: `shape` is that of one example; -1 is any length."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, port: Any, *, where: str) -> ModelInput:
        """From what ONNX Runtime says of an input.

        Raises:
            CommandError: it is no tensor of a dataset's types with an axis of examples.
        """
        dtype = _DTYPES.get(port.type)
        if dtype is None or not port.shape:
            raise CommandError(f"{where}: input {port.name!r} is {port.type}{port.shape}, no field", code="bad-model")
        shape = tuple(size if isinstance(size, int) else -1 for size in port.shape[1:])
        return cls(name=port.name, dtype=dtype, shape=shape)


def parse_fields(entries: Sequence[str]) -> dict[str, list[str]]:
    """Columns by input name, from `NAME=COLUMN,COLUMN`; a column may be a pattern.

    Raises:
        CommandError: another form.
    """
    fields = {}
    for entry in entries:
        name, equals, columns = entry.partition("=")
        if not equals or not name or not columns:
            raise CommandError(
                f"--field {entry!r}: expected NAME=COLUMN,COLUMN or NAME=PATTERN", code="usage", exit_status=USAGE
            )
        fields[name] = columns.split(",")
    return fields


def load_inputs(
    path: Path, inputs: Sequence[ModelInput], *, fields: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays [N, ...] for every input; other arrays or columns of the file are left alone.

    Raises:
        DatasetError: the file cannot be read, or holds a cell that is no number.
        CommandError: an input is missing, or has another dtype or shape.
    """
    unknown = sorted(set(fields) - {port.name for port in inputs})
    if unknown:
        have = ", ".join(port.name for port in inputs)
        raise CommandError(
            f"--field {', '.join(unknown)}: the model's inputs are {have}", code="usage", exit_status=USAGE
        )
    if path.suffix.lower() == ".csv":
        columns, ignored = _columns(path, inputs, fields)
        arrays = load_dataset("input", path, columns=columns, ignore=ignored).arrays
    else:
        arrays = load_dataset("input", path).arrays
    for port in inputs:
        _check(port, arrays, path)
    return {port.name: arrays[port.name] for port in inputs}


def _check(port: ModelInput, arrays: Mapping[str, np.ndarray[Any, Any]], path: Path) -> None:
    got = arrays.get(port.name)
    if got is None:
        raise CommandError(
            f"{path}: has {', '.join(sorted(arrays))}; the model reads {port.name!r}", code="unusable-data"
        )
    shape = got.shape[1:]
    fits = len(shape) == len(port.shape) and all(
        want in (-1, have) for want, have in zip(port.shape, shape, strict=True)
    )
    if got.dtype.name != port.dtype or not fits:
        raise CommandError(
            f"{path}: {port.name!r} is {got.dtype.name}{list(shape)} per example, "
            f"the model reads {port.dtype}{list(port.shape)}",
            code="unusable-data",
        )


def _columns(
    path: Path, inputs: Sequence[ModelInput], fields: Mapping[str, Sequence[str]]
) -> tuple[dict[str, ColumnGroup], list[str]]:
    """How a file's columns make the inputs, and the columns no input reads."""
    header = _header(path)
    groups, taken = {}, set()
    for port in inputs:
        wanted = list(fields.get(port.name) or _guess(port, header, alone=len(inputs) == 1))
        shape = None if -1 in port.shape else port.shape
        if shape is not None and wanted == header and len(header) != math.prod(shape):
            raise CommandError(
                f"{path}: has {len(header)} columns ({_shown(header)}), the model's {port.name!r} reads "
                f"{math.prod(shape)}; name them in order by --field {port.name}=COLUMN,COLUMN",
                code="unusable-data",
            )
        groups[port.name] = ColumnGroup(columns=wanted, dtype=port.dtype, shape=shape)
        taken |= {column for column in header for name in wanted if column == name or fnmatchcase(column, name)}
    return groups, [column for column in header if column not in taken]


def _shown(header: Sequence[str]) -> str:
    return ", ".join(header[:8]) + (", ..." if len(header) > 8 else "")


def _guess(port: ModelInput, header: Sequence[str], *, alone: bool) -> list[str]:
    """`name`, else `name_*`, else every column where the model has one input."""
    if port.name in header:
        return [port.name]
    if alone and not any(fnmatchcase(column, f"{port.name}_*") for column in header):
        return list(header)
    return [f"{port.name}_*"]


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader([file.readline(1 << 20)], strict=True), [])
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror or error}", code="bad-file") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: is no UTF-8 .csv file: {error}", code="bad-dataset") from error
