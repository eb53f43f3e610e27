"""Shamir sharing over GF(2^8) with the polynomial 0x11b, byte by byte (spec 07 §2)."""

from __future__ import annotations

from spec.reference.refused import Refused

__all__ = ["multiply", "recover", "share"]

SECRET_BYTES = 32


def multiply(a: int, b: int) -> int:
    """Product in GF(2^8): carry-less, reduced by x^8 + x^4 + x^3 + x + 1."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a & 0x100:
            a ^= 0x11B
        b >>= 1
    return product


def invert(a: int) -> int:
    """a^254, which is 1/a for every a but 0."""
    result = 1
    for _ in range(254):
        result = multiply(result, a)
    return result


def share(secret: bytes, threshold: int, index: int, coefficients: bytes) -> bytes:
    """Share of peer `index`: the value at x = index + 1.

    `coefficients` are 32 * (threshold - 1) bytes: all 32 of power 1, then all 32 of power 2 and so on.
    """
    if len(secret) != SECRET_BYTES:
        raise Refused("secret-length", "07 §2", f"expected 32 bytes, got {len(secret)}")
    if len(coefficients) != SECRET_BYTES * (threshold - 1):
        raise Refused("coefficients", "07 §2", f"expected {SECRET_BYTES * (threshold - 1)}, got {len(coefficients)}")
    rows = [secret, *(coefficients[at : at + SECRET_BYTES] for at in range(0, len(coefficients), SECRET_BYTES))]
    out = []
    for byte in range(SECRET_BYTES):
        value = 0
        for row in reversed(rows):
            value = multiply(value, index + 1) ^ row[byte]
        out.append(value)
    return bytes(out)


def recover(shares: dict[int, bytes], threshold: int) -> bytes:
    """The secret from the `threshold` shares of lowest index: Lagrange interpolation at 0."""
    if len(shares) < threshold:
        raise Refused("too-few-shares", "07 §8", f"expected {threshold} shares, got {len(shares)}")
    used = sorted(shares)[:threshold]
    secret = [0] * SECRET_BYTES
    for i in used:
        weight = 1
        for j in used:
            if j != i:
                weight = multiply(weight, multiply(j + 1, invert((i + 1) ^ (j + 1))))
        for byte in range(SECRET_BYTES):
            secret[byte] ^= multiply(weight, shares[i][byte])
    return bytes(secret)
