"""Masks and their removal (spec 07 §6 and §8), one element at a time."""

from __future__ import annotations

from spec.reference import prg

__all__ = ["mask", "pairwise", "unmask"]


def pairwise(u: int, keys: dict[int, bytes], start: int, count: int, ring_bits: int) -> list[int]:
    """What u adds for the peers in `keys`: plus PRG(k_mask(u,v)) for v > u, minus it for v < u."""
    total = [0] * count
    for v, key in keys.items():
        sign = 1 if v > u else -1
        for e, value in enumerate(prg.elements(key, start, count, ring_bits)):
            total[e] = (total[e] + sign * value) % 2**ring_bits
    return total


def mask(u: int, q: list[int], self_key: bytes, keys: dict[int, bytes], ring_bits: int) -> list[int]:
    """y_u: `q` padded to a multiple of 8, the self-mask and the pairwise masks with every other peer of K."""
    padded = q + [0] * (-len(q) % 8)
    own = prg.elements(self_key, 0, len(padded), ring_bits)
    shared = pairwise(u, keys, 0, len(padded), ring_bits)
    return [(a + b + c) % 2**ring_bits for a, b, c in zip(padded, own, shared, strict=True)]


def unmask(
    masked: dict[int, list[int]],
    self_keys: dict[int, bytes],
    dropout_keys: dict[int, dict[int, bytes]],
    start: int,
    ring_bits: int,
) -> list[int]:
    """Sum of one chunk over the survivors.

    `masked[u]` is u's chunk, which starts at element `start`; `self_keys[u]` its k_self; `dropout_keys[u][w]` is
    k_mask(u,w) for every w in K but not in U.
    """
    count = len(next(iter(masked.values())))
    total = [0] * count
    for u, values in masked.items():
        own = prg.elements(self_keys[u], start, count, ring_bits)
        left = pairwise(u, dropout_keys[u], start, count, ring_bits)
        for e in range(count):
            total[e] = (total[e] + values[e] - own[e] - left[e]) % 2**ring_bits
    return total
