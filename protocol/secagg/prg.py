"""The mask generator (spec 07 §2): AES-256-CTR keystream, seekable, equal to AES-256-GCM of zeros."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, GCM

__all__ = ["TILE", "MaskStream", "by_ctr", "by_gcm", "write_keystream"]

TILE = 1 << 16
"""Elements expanded at once: 256 KiB of keystream stay in the processor's second-level cache."""

_ZEROS = memoryview(bytes(4 * TILE))


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

    def fill(self, out: memoryview) -> None:
        """Write the next elements (at most TILE) as full 32-bit words into bytes; the caller keeps the low k bits."""
        write_keystream(self._encryptor, out)


def by_ctr(key: bytes, start: int) -> CipherContext:
    """The keystream from element `start` on."""
    return Cipher(AES(key), CTR(bytes(12) + (2 + start // 4).to_bytes(4, "big"))).encryptor()


def by_gcm(key: bytes) -> CipherContext:
    """The keystream from the first element on: a nonce of zeros makes GCM's first counter 2."""
    return Cipher(AES(key), GCM(bytes(12))).encryptor()


def write_keystream(encryptor: CipherContext, out: memoryview) -> None:
    """Write its next bytes into `out`, at most 4 * TILE."""
    encryptor.update_into(_ZEROS[: len(out)], out)
