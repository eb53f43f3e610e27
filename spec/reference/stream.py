"""Labelled bytes that look random and never change: what vectors use where a peer asks its operating system.

block i of label = SHA-256("peerplan/vectors/1" | label | u32le(i))
"""

from __future__ import annotations

import hashlib

__all__ = ["Stream"]


class Stream:
    """An endless stream of bytes, given by its label alone."""

    def __init__(self, label: str) -> None:
        self._prefix = b"peerplan/vectors/1" + label.encode("ascii")
        self._blocks = 0
        self._held = b""

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        while len(self._held) < size:
            self._held += hashlib.sha256(self._prefix + self._blocks.to_bytes(4, "little")).digest()
            self._blocks += 1
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    def below(self, bound: int) -> int:
        """The next 8 bytes, little-endian, modulo `bound`: even enough for vectors, not for secrets."""
        return int.from_bytes(self.take(8), "little") % bound
