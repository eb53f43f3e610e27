"""Shamir sharing over GF(2^8), polynomial 0x11b, byte by byte (spec 07 §2). Source: Shamir, CACM 1979."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from protocol.errors import RoundError

__all__ = ["SECRET_BYTES", "coefficient_bytes", "expected_share", "recover_secret", "share_secret"]

SECRET_BYTES = 32

Bytes = NDArray[np.uint8]


def _tables() -> tuple[Bytes, NDArray[np.int64], Bytes]:
    exp = np.zeros(512, np.int64)
    log = np.zeros(256, np.int64)
    value = 1
    for power in range(255):
        exp[power] = exp[power + 255] = value
        log[value] = power
        value ^= value << 1  # times 3, a generator
        if value & 0x100:
            value ^= 0x11B
    product = exp[log[:, None] + log[None, :]].astype(np.uint8)
    product[0, :] = product[:, 0] = 0
    return exp.astype(np.uint8), log, product


_EXP, _LOG, _PRODUCT = _tables()


def coefficient_bytes(threshold: int) -> int:
    """Random bytes that sharing one secret consumes."""
    return SECRET_BYTES * (threshold - 1)


def share_secret(secret: bytes, *, threshold: int, indexes: list[int], coefficients: bytes) -> dict[int, bytes]:
    """Shares of a 32-byte secret for the given peer indexes; peer i's is the polynomial at x = i + 1.

    `coefficients` are `coefficient_bytes(threshold)` random bytes, those of degree 1 first.
    """
    if len(secret) != SECRET_BYTES or len(coefficients) != coefficient_bytes(threshold):
        raise RoundError(
            f"sharing: expected 32 secret and {coefficient_bytes(threshold)} random bytes, "
            f"got {len(secret)} and {len(coefficients)}"
        )
    polynomial = np.frombuffer(secret + coefficients, np.uint8).reshape(threshold, SECRET_BYTES)
    x = np.array(indexes) + 1
    powers = _EXP[np.outer(np.arange(threshold), _LOG[x]) % 255].astype(np.intp)
    terms = _PRODUCT.take(256 * powers[:, :, None] + polynomial[:, None, :])  # one look-up of all products
    values = np.bitwise_xor.reduce(terms, axis=0)
    return {index: values[row].tobytes() for row, index in enumerate(indexes)}


def recover_secret(shares: Mapping[int, bytes]) -> bytes:
    """The polynomial's value at zero through exactly the given shares (peer index to 32 bytes).

    Whether the result is the secret that was shared is for the caller to check against a commitment.
    """
    return _interpolate(shares, 0)


def expected_share(shares: Mapping[int, bytes], index: int) -> bytes:
    """What peer `index` holds if the given shares, exactly as many as recover, are right."""
    return _interpolate(shares, index + 1)


def _interpolate(shares: Mapping[int, bytes], x: int) -> bytes:
    """Lagrange interpolation at `x`: weight_i = product over j != i of (x - x_j) / (x_i - x_j), as sums of logs."""
    points = np.fromiter((index + 1 for index in shares), np.int64, len(shares))
    if x in points:
        return shares[x - 1]
    between = _LOG[points[:, None] ^ points[None, :]]
    np.fill_diagonal(between, 0)
    towards = _LOG[points ^ x]
    weights = _EXP[(towards.sum() - towards - between.sum(axis=1)) % 255]
    values = np.frombuffer(b"".join(shares.values()), np.uint8).reshape(len(shares), SECRET_BYTES)
    return bytes(np.bitwise_xor.reduce(_PRODUCT[weights[:, None], values], axis=0))
