"""Packing of ring elements (spec 07 §6)."""

from __future__ import annotations

from spec.reference.refused import Refused

__all__ = ["RING_BITS", "pack", "packed_size", "unpack"]

RING_BITS = (16, 20, 24, 32)


def packed_size(count: int, ring_bits: int) -> int:
    """Bytes of `count` packed elements; `count` is a multiple of 8."""
    return count * ring_bits // 8


def pack(values: list[int], ring_bits: int) -> bytes:
    if ring_bits not in RING_BITS:
        raise Refused("ring-bits", "07 §1", f"expected one of {RING_BITS}, got {ring_bits}")
    if len(values) % 8:
        raise Refused("pack-count", "07 §6", f"{len(values)} elements are no multiple of 8")
    for value in values:
        if not 0 <= value < 2**ring_bits:
            raise Refused("pack-value", "07 §6", f"{value} is not in a ring of {ring_bits} bits")
    if ring_bits == 20:
        pairs = zip(values[0::2], values[1::2], strict=True)
        return b"".join((a + b * 2**20).to_bytes(5, "little") for a, b in pairs)
    return b"".join(value.to_bytes(ring_bits // 8, "little") for value in values)


def unpack(data: bytes, count: int, ring_bits: int) -> list[int]:
    if ring_bits not in RING_BITS:
        raise Refused("ring-bits", "07 §1", f"expected one of {RING_BITS}, got {ring_bits}")
    if count % 8:
        raise Refused("pack-count", "07 §6", f"{count} elements are no multiple of 8")
    if len(data) != packed_size(count, ring_bits):
        raise Refused("pack-length", "07 §6", f"expected {packed_size(count, ring_bits)} bytes, got {len(data)}")
    step = 5 if ring_bits == 20 else ring_bits // 8
    words = [int.from_bytes(data[at : at + step], "little") for at in range(0, len(data), step)]
    if ring_bits == 20:
        return [value for word in words for value in (word % 2**20, word // 2**20)]
    return words
