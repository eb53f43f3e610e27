"""The Ed25519 curve in plain integers (RFC 8032 §5.1), for the rule of spec 02 §1 and for cases that break it."""

from __future__ import annotations

import hashlib

__all__ = [
    "BASE",
    "ORDER",
    "PRIME",
    "SMALL_ORDER",
    "TORSION",
    "Point",
    "add",
    "encode_point",
    "is_canonical",
    "is_small",
    "multiply",
    "scalar_of",
]

Point = tuple[int, int]

PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
"""Order of the base point."""

_D = -121665 * pow(121666, -1, PRIME) % PRIME
_NEUTRAL: Point = (0, 1)


def _x_of(y: int) -> int | None:
    """The even x of a point, None where there is no point."""
    square = (y * y - 1) * pow(_D * y * y + 1, -1, PRIME) % PRIME
    x = pow(square, (PRIME + 3) // 8, PRIME)
    if (x * x - square) % PRIME:
        x = x * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
    if (x * x - square) % PRIME:
        return None
    return x if x % 2 == 0 else PRIME - x


def add(p: Point, q: Point) -> Point:
    """The sum of two points."""
    product = _D * p[0] * q[0] * p[1] * q[1] % PRIME
    x = (p[0] * q[1] + q[0] * p[1]) * pow(1 + product, -1, PRIME)
    y = (p[1] * q[1] + p[0] * q[0]) * pow(1 - product, -1, PRIME)
    return x % PRIME, y % PRIME


def multiply(point: Point, times: int) -> Point:
    """A point added to itself."""
    total = _NEUTRAL
    while times:
        if times & 1:
            total = add(total, point)
        point, times = add(point, point), times >> 1
    return total


def encode_point(point: Point) -> bytes:
    """32 bytes: y, and the lowest bit of x on top."""
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def scalar_of(*parts: bytes) -> int:
    """SHA-512 of the parts, as a number below the order."""
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % ORDER


def _base() -> Point:
    y = 4 * pow(5, -1, PRIME) % PRIME
    x = _x_of(y)
    assert x is not None
    return x, y


def _torsion() -> Point:
    """A point of order eight."""
    for y in range(2, 100):
        x = _x_of(y)
        if x is not None:
            point = multiply((x, y), ORDER)
            if multiply(point, 4) != _NEUTRAL:
                return point
    raise AssertionError("no point of order eight found")


BASE = _base()
TORSION = _torsion()
SMALL_ORDER: frozenset[bytes] = frozenset(encode_point(multiply(TORSION, times)) for times in range(8))
"""The eight points whose order divides eight, each in its canonical encoding."""


def is_canonical(encoded: bytes) -> bool:
    """Whether y is below the prime."""
    return int.from_bytes(encoded, "little") & ((1 << 255) - 1) < PRIME


def is_small(encoded: bytes) -> bool:
    """Whether these bytes, sign bit and multiples of the prime put aside, are a point of order at most eight."""
    y = (int.from_bytes(encoded, "little") & ((1 << 255) - 1)) % PRIME
    return y in {int.from_bytes(point, "little") & ((1 << 255) - 1) for point in SMALL_ORDER}
