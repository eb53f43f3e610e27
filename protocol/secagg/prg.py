"""The mask generator (spec 07 §2): AES-256-CTR keystream, seekable, equal to AES-256-GCM of zeros.

OpenSSL has the same bytes in two forms, and which one is faster depends on the processor: where it has vector AES
instructions GCM encrypts a third faster than CTR although it authenticates too,
elsewhere CTR wins. Only CTR can seek.
"""

from __future__ import annotations

import time
from functools import cache
from itertools import pairwise

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, GCM
from numpy.typing import NDArray

__all__ = ["TILE", "MaskStream"]

TILE = 1 << 16
"""Elements expanded at once: 256 KiB of keystream stay in the processor's second-level cache."""

_ZEROS = bytes(4 * TILE)
_PROBE_BYTES = 1 << 16
_PROBES = 5


class MaskStream:
    """Mask elements of one key from `start` on (a multiple of four); `repr` shows no key."""

    __slots__ = ("_encryptor",)

    def __init__(self, key: bytes, *, start: int = 0) -> None:
        """Seek to element `start`: block 2 + start / 4 of the counter."""
        if start % 4:
            raise ValueError(f"a mask starts at a multiple of 4 elements, got {start}")
        self._encryptor = by_gcm(key) if start == 0 and _gcm_is_faster() else by_ctr(key, start)

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


@cache
def _gcm_is_faster() -> bool:
    """Which form this processor prefers, tried once in a tenth of a millisecond; the bytes are the same."""
    return min(_seconds(by_gcm(bytes(32)))) < min(_seconds(by_ctr(bytes(32), 0)))


def _seconds(encryptor: CipherContext) -> list[float]:
    zeros, out, marks = memoryview(_ZEROS)[:_PROBE_BYTES], bytearray(_PROBE_BYTES), [time.perf_counter()]
    for _ in range(_PROBES):
        encryptor.update_into(zeros, out)
        marks.append(time.perf_counter())
    return [after - before for before, after in pairwise(marks)]
