"""Datasets from numpy's .npz files; every size is known from headers before a value is read."""

from __future__ import annotations

import lzma
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from python_node.datasets.dataset import MAX_FIELDS, Array, check_field
from python_node.errors import DatasetError

__all__ = ["load_npz"]

_HEADER_BYTES = 16 << 10

# what zipfile, its decompressors and numpy's header parser raise on broken or encrypted bytes
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


def load_npz(path: Path, *, max_bytes: int) -> dict[str, Array]:
    """Arrays of an .npz file by name, C-contiguous, in this machine's byte order.

    Raises:
        DatasetError: no .npz, an object array, a dtype or shape outside a dataset's, or more than `max_bytes`.
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path, max_bytes=max_bytes)
            total = sum(_array_bytes(archive, member, path) for member in members)
            if total > max_bytes:
                raise DatasetError(f"{path}: its arrays take {total} bytes, at most {max_bytes} are loaded")
            return {_field_name(member): _read(archive, member) for member in members}
    except _BROKEN as error:
        raise DatasetError(f"{path}: is no .npz file that numpy can read: {error}") from None


def _members(archive: zipfile.ZipFile, path: Path, *, max_bytes: int) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if not 1 <= len(members) <= MAX_FIELDS:
        raise DatasetError(f"{path}: {len(members)} arrays, expected 1 to {MAX_FIELDS}")
    for member in members:
        if not member.filename.endswith(".npy"):
            raise DatasetError(f"{path}: holds {member.filename[:128]!r}, expected .npy members alone")
    if len({member.filename for member in members}) < len(members):
        raise DatasetError(f"{path}: two arrays have the same name")
    total = sum(member.file_size for member in members)
    if total > max_bytes + _HEADER_BYTES * len(members):
        raise DatasetError(f"{path}: {total} bytes when unpacked, at most {max_bytes} are loaded")
    return members


def _field_name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")


def _array_bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> int:
    """Bytes of the array's values as its header tells them, checked against the zip entry."""
    with archive.open(member) as file:
        shape, dtype, header = _read_header(file)
    check_field(_field_name(member), dtype, shape, where=str(path))
    size = math.prod(shape) * dtype.itemsize
    if member.file_size != header + size:
        raise DatasetError(
            f"{path}: field {_field_name(member)!r} needs {size} bytes for {dtype.name}{list(shape)}, "
            f"its entry holds {member.file_size - header}"
        )
    return size


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=_HEADER_BYTES)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file, max_header_size=_HEADER_BYTES)
    else:
        raise ValueError(f"npy format {version[0]}.{version[1]}, expected 1.0 or 2.0")
    return shape, dtype, file.tell()


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False, max_header_size=_HEADER_BYTES)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
