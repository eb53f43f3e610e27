"""The layout of SCTP packets (RFC 9260 §3), as far as DATA and SACK go."""

from __future__ import annotations

import struct
from collections.abc import Coroutine
from typing import Any, Final

from aiortc.rtcsctptransport import DataChunk
from google_crc32c import value as crc32c

__all__ = [
    "CHECKSUM",
    "COMMON",
    "DATA",
    "DATA_FIELDS",
    "DATA_HEADER",
    "IMMEDIATE",
    "NO_CHECKSUM",
    "PACKET_BYTES",
    "PADDING",
    "SACK_BYTES",
    "SACK_FIELDS",
    "TSNS",
    "OutgoingChunk",
    "newer",
    "pack_sack",
    "run_now",
    "split_packet",
]

TSNS: Final = 1 << 32
DATA: Final = 0
SACK: Final = 3
IMMEDIATE: Final = 0x08
"""DATA flag of RFC 7053: the sender waits for the acknowledgement."""
PACKET_BYTES: Final = 1189
SACK_BYTES: Final = 16
DATA_FIELDS: Final = struct.Struct("!LHHL")
"""TSN, stream, number in the stream, payload protocol: what follows the chunk header of DATA."""
COMMON: Final = struct.Struct("!HHL")
"""Source and destination port and verification tag: what a packet begins with. Its checksum follows."""
CHECKSUM: Final = struct.Struct("<L")
NO_CHECKSUM: Final = b"\0\0\0\0"
"""What stands in its place while the checksum is computed."""
DATA_HEADER: Final = struct.Struct("!BBHLHHL")
"""Type, flags and length of a DATA chunk, and its fields."""
PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
"""By the length of a chunk modulo four."""
SACK_FIELDS: Final = struct.Struct("!LLHH")
"""Cumulative TSN, window, number of gap blocks, number of duplicates: what follows the chunk header of SACK."""

_HALF: Final = 1 << 31
_CHUNK: Final = struct.Struct("!BBH")
_SACK_HEADER: Final = struct.Struct("!BBHLLHH")


def run_now(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that does not suspend."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise RuntimeError("a coroutine of aiortc waited where it never did: the version is not a known one")


def newer(a: int, b: int) -> bool:
    """Whether TSN `a` is after `b` (RFC 1982 arithmetic)."""
    return 0 < (a - b) % TSNS < _HALF


class OutgoingChunk(DataChunk):
    """A DATA chunk to send; the book-keeping starts as class attributes, so that making one is cheap."""

    _abandoned = False
    _acked = False
    _expiry = None
    _in_flight = False
    _max_retransmits = None
    _misses = 0
    _retransmit = False
    _sent_count = 0
    _sent_time = None

    def __init__(
        self, flags: int, tsn: int, stream_id: int, stream_seq: int, protocol: int, user_data: bytes
    ) -> None:
        self.flags = flags
        self.tsn = tsn
        self.stream_id = stream_id
        self.stream_seq = stream_seq
        self.protocol = protocol
        self.user_data = user_data
        self._book_size = len(user_data)


def pack_sack(cumulative: int, window: int) -> bytes:
    """A SACK chunk without gaps and duplicates."""
    return _SACK_HEADER.pack(SACK, 0, SACK_BYTES, cumulative, window, 0, 0)


def split_packet(data: bytes) -> tuple[int, list[tuple[int, int, int, int]]] | None:
    """Verification tag and (type, flags, begin, end of the fields) per chunk; None unless all is DATA and SACK.

    None also for what is malformed: the library's parser then says so.
    """
    length = len(data)
    if length < 16:  # common header and one chunk header
        return None
    if CHECKSUM.unpack_from(data, 8)[0] != crc32c(data[:8] + NO_CHECKSUM + data[12:]):
        return None
    parts: list[tuple[int, int, int, int]] = []
    at = 12
    while at <= length - 4:
        kind, flags, size = _CHUNK.unpack_from(data, at)
        end = at + size
        if end > length or not _well_formed(kind, size, data, at):
            return None
        parts.append((kind, flags, at + 4, end))
        at = end + (-size % 4)
    return COMMON.unpack_from(data)[2], parts


def _well_formed(kind: int, size: int, data: bytes, at: int) -> bool:
    if kind == DATA:
        return size > 16  # its header and at least one byte
    if kind == SACK and size >= SACK_BYTES:
        _, _, gaps, duplicates = SACK_FIELDS.unpack_from(data, at + 4)
        return bool(SACK_BYTES + 4 * (gaps + duplicates) == size)
    return False
