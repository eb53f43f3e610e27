"""The mask generator (spec 07 §2): AES-256-CTR keystream, seekable, equal to AES-256-GCM of zeros."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, GCM
from numpy.typing import NDArray

__all__ = ["TILE", "MaskStream", "by_ctr", "by_gcm"]

TILE = 1 << 16
"""Elements expanded at once: 256 KiB of keystream stay in the processor's second-level cache."""

_ZEROS = bytes(4 * TILE)


class MaskStream:
    """Mask elements of one key from `start` on (a multiple of four); `repr` shows no key.

    From the first element on they come as GCM, which OpenSSL encrypts a third faster than CTR where the processor has
    vector AES instructions, although it authenticates too; only CTR can seek.
    """

    __slots__ = ("_encryptor",)

    def __init__(self, key: bytes, *, start: int = 0) -> None:
        """Seek to element `start`: block 2 + start / 4 of the counter."""
        if start % 4:
            raise ValueError(f"a mask starts at a multiple of 4 elements, got {start}")
        self._encryptor = by_ctr(key, start) if start else by_gcm(key)

    def fill(self, out: NDArray[np.uint32]) -> None:
        """Write the next `len(out)` elements (at most TILE) as full 32-bit words; the caller keeps the low k bits."""
        view = out.data.cast("B")
        self._encryptor.update_into(memoryview(_ZEROS)[: len(view)], view)


def by_ctr(key: bytes, start: int) -> CipherContext:
    """The keystream from element `start` on."""
    return Cipher(AES(key), CTR(bytes(12) + (2 + start // 4).to_bytes(4, "big"))).encryptor()


def by_gcm(key: bytes) -> CipherContext:
    """The keystream from the first element on: a nonce of zeros makes GCM's first counter 2."""
    return Cipher(AES(key), GCM(bytes(12))).encryptor()
