"""The layout of SCTP packets (RFC 9260 §3): what comes is split and checked, and SACKs are built."""

from __future__ import annotations

import struct
from collections.abc import Coroutine, Sequence
from typing import Any, Final

import aiortc.rtcsctptransport as _library
from aiortc.rtcsctptransport import CHUNK_TYPES, RECONFIG_PARAM_TYPES, Chunk, DataChunk, ReconfigChunk
from google_crc32c import value as crc32c

__all__ = [
    "CHECKSUM",
    "COMMON",
    "DATA",
    "DATA_FIELDS",
    "DATA_HEADER",
    "HALF",
    "IMMEDIATE",
    "NO_CHECKSUM",
    "PACKET_BYTES",
    "PADDING",
    "SACK",
    "SACK_BYTES",
    "SACK_FIELDS",
    "TSNS",
    "OutgoingChunk",
    "PacketError",
    "newer",
    "pack_chunk",
    "pack_sack",
    "pack_selective_sack",
    "parse_chunk",
    "run_now",
    "split_packet",
]

TSNS: Final = 1 << 32
HALF: Final = 1 << 31
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

_CHUNK: Final = struct.Struct("!BBH")
_PARAMETER: Final = struct.Struct("!HH")
_GAP: Final = struct.Struct("!HH")
_TSN: Final = struct.Struct("!L")
_SACK_HEADER: Final = struct.Struct("!BBHLLHH")
_DATA_FIRST: Final = 16
"""Where the payload of a DATA chunk begins."""
_LARGEST_CONTROL: Final = PACKET_BYTES - COMMON.size - CHECKSUM.size
"""A chunk of set-up or reset is at most so long; a cookie goes back in a packet of our own."""
_MOST_RESETS: Final = 2
"""Parameters of one RE-CONFIG chunk (RFC 6525 §3.1): each is answered by a packet."""


class PacketError(Exception):
    """A peer sent what no implementation of SCTP, or none of this one channel, sends; says what was expected."""


def _checked_parameters(body: bytes) -> list[tuple[int, bytes]]:
    at = 0
    while at <= len(body) - _PARAMETER.size:
        size = _PARAMETER.unpack_from(body, at)[1]
        if size < _PARAMETER.size:
            # The library would read this parameter without end.
            raise ValueError(f"expected a parameter of at least 4 bytes, got a parameter of {size} bytes")
        at += size + -size % 4
    return _decode_params(body)


_decode_params = _library.decode_params
_library.decode_params = _checked_parameters  # also where the library's transports serve: it refuses a ValueError


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
    return 0 < (a - b) % TSNS < HALF


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


def pack_chunk(kind: int, body: bytes) -> bytes:
    """A chunk without flags, padded."""
    return _CHUNK.pack(kind, 0, _CHUNK.size + len(body)) + body + PADDING[len(body) % 4]


def pack_sack(cumulative: int, window: int) -> bytes:
    """A SACK chunk that all came up to a TSN."""
    return _SACK_HEADER.pack(SACK, 0, SACK_BYTES, cumulative, window, 0, 0)


def pack_selective_sack(
    cumulative: int, window: int, gaps: Sequence[tuple[int, int]], duplicates: Sequence[int]
) -> bytes:
    """A SACK chunk with what came beyond; gap blocks are (first, last) counted from the cumulative TSN."""
    size = SACK_BYTES + 4 * (len(gaps) + len(duplicates))
    header = _SACK_HEADER.pack(SACK, 0, size, cumulative, window, len(gaps), len(duplicates))
    return b"".join((header, *(_GAP.pack(*gap) for gap in gaps), *(_TSN.pack(tsn) for tsn in duplicates)))


def split_packet(data: bytes) -> tuple[int, list[tuple[int, int, int, int]]] | None:
    """Verification tag and (type, flags, begin, end of the fields) per chunk; None where the checksum is wrong.

    Raises:
        PacketError: a length that does not fit.
    """
    length = len(data)
    if length < COMMON.size + CHECKSUM.size:
        return None
    if CHECKSUM.unpack_from(data, 8)[0] != crc32c(data[:8] + NO_CHECKSUM + data[12:]):
        return None
    parts: list[tuple[int, int, int, int]] = []
    at = 12
    while at <= length - 4:
        kind, flags, size = _CHUNK.unpack_from(data, at)
        end = at + size
        if size < _CHUNK.size or end > length:
            raise PacketError(f"expected a chunk of 4 to {length - at} bytes, got {size}")
        if kind == DATA:
            if size <= _DATA_FIRST:
                raise PacketError(f"expected a DATA chunk of more than {_DATA_FIRST} bytes, got {size}")
        elif kind == SACK:
            _check_sack(size, data, at)
        parts.append((kind, flags, at + 4, end))
        at = end + (-size % 4)
    return COMMON.unpack_from(data)[2], parts


def parse_chunk(kind: int, flags: int, body: bytes) -> Chunk | None:
    """What the library makes of a chunk of another type than DATA and SACK; None if it knows none such.

    Raises:
        PacketError: it is malformed, or larger than any that is answered.
    """
    form = CHUNK_TYPES.get(kind)
    if form is None:
        return None
    if len(body) > _LARGEST_CONTROL:
        raise PacketError(f"expected a chunk of type {kind} of at most {_LARGEST_CONTROL} bytes, got {len(body)}")
    try:
        chunk: Chunk = form(flags=flags, body=body)
        if isinstance(chunk, ReconfigChunk):
            _check_resets(chunk.params)
    except ValueError as error:
        raise PacketError(str(error)) from None
    except struct.error as error:
        raise PacketError(f"expected a whole chunk of type {kind}, got {len(body)} bytes: {error}") from None
    return chunk


def _check_resets(parameters: list[tuple[int, bytes]]) -> None:
    if len(parameters) > _MOST_RESETS:
        raise PacketError(f"expected at most {_MOST_RESETS} parameters of RE-CONFIG, got {len(parameters)}")
    for number, value in parameters:
        if number in RECONFIG_PARAM_TYPES:
            RECONFIG_PARAM_TYPES[number].parse(value)


def _check_sack(size: int, data: bytes, at: int) -> None:
    named = SACK_BYTES
    if size >= SACK_BYTES:
        _, _, gaps, duplicates = SACK_FIELDS.unpack_from(data, at + 4)
        named += 4 * (gaps + duplicates)
    if size != named:
        raise PacketError(f"expected a SACK of {named} bytes, got {size}")
