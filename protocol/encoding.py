"""Bytes on the wire (spec 01): strict JSON for signed documents and signaling, little-endian binary for links.

JSON rules: UTF-8, no unknown fields, no NaN or infinity; `bytes` are standard base64 with padding (RFC 4648 §4);
digests and peer ids are 64 lower-case hexadecimal digits.
"""

from __future__ import annotations

import hashlib
import re
import struct
from typing import Annotated, Any, NewType, TypeVar

import msgspec

from protocol.errors import EncodingError, LimitExceededError

__all__ = [
    "Digest",
    "Hex64",
    "Name",
    "Reader",
    "Writer",
    "decode_json",
    "digest_of",
    "encode_json",
    "parse_hex",
]

_T = TypeVar("_T")
_HEX64 = re.compile(r"[0-9a-f]{64}")

# Python's `$` also matches before a last line feed; the look-ahead makes it the end in every language's dialect.
Hex64 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
"""32 bytes as 64 lower-case hexadecimal digits."""

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$(?!\n)")]
"""A name people choose: 1 to 128 ASCII letters, digits, dots, underscores, slashes and dashes."""

Digest = NewType("Digest", str)
"""SHA-256 as 64 lower-case hexadecimal digits."""


def digest_of(*parts: bytes | bytearray | memoryview) -> Digest:
    """SHA-256 of the concatenated parts, as lower-case hexadecimal."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part)
    return Digest(state.hexdigest())


def parse_hex(text: str, *, what: str) -> bytes:
    """The 32 bytes behind 64 lower-case hexadecimal digits; `what` names the field in the error.

    Raises:
        EncodingError: the text has another length or other characters.
    """
    if not _HEX64.fullmatch(text):
        raise EncodingError(f"{what}: expected 64 lower-case hexadecimal digits, got {text[:80]!r}")
    return bytes.fromhex(text)


def encode_json(value: object) -> bytes:
    """UTF-8 JSON of a msgspec struct (or plain value) in field order."""
    return msgspec.json.encode(value)


def decode_json(data: bytes | str, kind: type[_T], *, what: str, max_bytes: int) -> _T:
    """Parse strict JSON into `kind`; `what` names the document in errors.

    Raises:
        LimitExceededError: more than `max_bytes` bytes were given.
        EncodingError: the text is no JSON, or does not fit `kind`.
    """
    if len(data) > max_bytes:
        raise LimitExceededError(f"{what}: {len(data)} bytes, at most {max_bytes} are accepted")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EncodingError(f"{what}: {error}") from None


class Writer:
    """Append little-endian integers and byte strings; `bytes()` ends it."""

    def __init__(self) -> None:
        self._parts: list[bytes | memoryview] = []

    def uint(self, value: int, size: int) -> Writer:
        """Append `value` as `size` little-endian bytes (1, 2, 4 or 8)."""
        try:
            self._parts.append(value.to_bytes(size, "little"))
        except OverflowError:
            raise EncodingError(f"{value} does not fit in {size} unsigned bytes") from None
        return self

    def raw(self, data: bytes | memoryview, size: int | None = None) -> Writer:
        """Append bytes as they are; `size`, where given, is the length they must have."""
        if size is not None and len(data) != size:
            raise EncodingError(f"expected {size} bytes, got {len(data)}")
        self._parts.append(data)
        return self

    def __bytes__(self) -> bytes:
        return b"".join(self._parts)


class Reader:
    """Read what `Writer` wrote; every length is checked before it is taken."""

    def __init__(self, data: bytes | memoryview, *, what: str, start: int = 0) -> None:
        """Read from byte `start` on; `what` names the document in errors."""
        self._data = memoryview(data)
        self._end = len(self._data)
        self._at = start
        self._what = what

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return self._end - self._at

    def uint(self, size: int) -> int:
        """The next `size` bytes as a little-endian unsigned integer."""
        return int.from_bytes(self._take(size), "little")

    def raw(self, size: int) -> bytes:
        """The next `size` bytes."""
        return bytes(self._take(size))

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        """The next values of a fixed layout."""
        return layout.unpack(self._take(layout.size))

    def view(self, size: int) -> memoryview:
        """The next `size` bytes without a copy."""
        return self._take(size)

    def end(self) -> None:
        """Check that nothing is left over.

        Raises:
            EncodingError: bytes are left.
        """
        if self.remaining:
            raise EncodingError(f"{self._what}: {self.remaining} bytes too many")

    def _take(self, size: int) -> memoryview:
        start = self._at
        end = start + size
        if end > self._end:
            raise EncodingError(f"{self._what}: expected {size} more bytes, got {self.remaining}")
        self._at = end
        return self._data[start:end]
