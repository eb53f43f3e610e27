"""Little-endian integers and sets of indexes, as spec 07 writes them: `u16(x)`, `bits(S)`, `H(...)`."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

__all__ = ["H", "bits", "f64", "members", "u8", "u16", "u32", "u64"]


def H(*parts: bytes) -> bytes:  # noqa: N802 - the spec's own name
    return hashlib.sha256(b"".join(parts)).digest()


def u8(value: int) -> bytes:
    return value.to_bytes(1, "little")


def u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def f64(value: float) -> bytes:
    return struct.pack("<d", value)


def bits(indexes: Iterable[int]) -> bytes:
    """A set as u64: bit i stands for index i."""
    return u64(sum(1 << index for index in set(indexes)))


def members(word: int) -> list[int]:
    """The indexes of a set, ascending."""
    return [index for index in range(64) if word >> index & 1]
