"""Mask generator (spec 07 §2): AES-256 in counter mode, written out block by block."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

__all__ = ["elements", "keystream"]


def keystream(key: bytes, start: int, size: int) -> bytes:
    """`size` bytes of keystream from byte `start`; block i encrypts 00^12 | u32be(2 + i)."""
    first, last = start // 16, (start + size + 15) // 16
    counters = b"".join(bytes(12) + (2 + block).to_bytes(4, "big") for block in range(first, last))
    encryptor = Cipher(AES256(key), ECB()).encryptor()
    blocks = encryptor.update(counters) + encryptor.finalize()
    skip = start - 16 * first
    return blocks[skip : skip + size]


def elements(key: bytes, start: int, count: int, ring_bits: int) -> list[int]:
    """PRG(key)[start : start + count]: the u32 at byte 4e, its low k bits."""
    stream = keystream(key, 4 * start, 4 * count)
    return [int.from_bytes(stream[4 * e : 4 * e + 4], "little") % 2**ring_bits for e in range(count)]
