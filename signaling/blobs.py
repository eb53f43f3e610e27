"""Blobs as files named by their SHA-256, written whole or not at all; blocking, so called in a thread.

A partial upload is `<digest>.<author>.part`: authors cannot spoil each other's, and it can be resumed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from protocol.signaling import codes
from signaling.errors import RefusedError

__all__ = ["BlobFolder", "Upload"]

TILE_BYTES = 1 << 20


class BlobFolder:
    """The folder of all blobs, mode 0700; files are 0600."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder

    def read(self, digest: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes of a stored blob."""
        with self._path(digest).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def partial_size(self, digest: str, author: str) -> int:
        """Bytes of an unfinished upload that can be resumed."""
        try:
            return self._part(digest, author).stat().st_size
        except FileNotFoundError:
            return 0

    def upload(self, digest: str, author: str, size: int) -> Upload:
        """Begin or resume an upload; what is there already is hashed again."""
        return Upload(self._part(digest, author), self._path(digest), digest=digest, size=size)

    def store_empty(self, digest: str) -> None:
        """Store the blob of no bytes, which no frame can carry."""
        self._path(digest).parent.mkdir(mode=0o700, exist_ok=True)
        self._path(digest).touch(mode=0o600)

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest

    def _part(self, digest: str, author: str) -> Path:
        return self._folder / f"{digest}.{author[:16]}.part"


class Upload:
    """One blob being received in order. `offset` is what was received so far."""

    def __init__(self, part: Path, target: Path, *, digest: str, size: int) -> None:
        self._part = part
        self._target = target
        self.digest = digest
        self.size = size
        self._hash = hashlib.sha256()
        self._file = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        self.offset = 0
        while tile := self._file.read(TILE_BYTES):
            self._hash.update(tile)
            self.offset += len(tile)
        if self.offset > size:
            self._restart()

    def append(self, offset: int, data: bytes | memoryview) -> bool:
        """Take the next bytes; True where they complete the blob, which is then stored under its name.

        Raises:
            RefusedError: a gap, too many bytes, or a blob that is not what its digest says.
        """
        if offset != self.offset or offset + len(data) > self.size:
            raise RefusedError(
                codes.BLOB_MISMATCH,
                f"blob {self.digest[:12]}: got bytes {offset} to {offset + len(data)}, "
                f"expected them from {self.offset} on and {self.size} in all",
            )
        self._file.write(data)
        self._hash.update(data)
        self.offset += len(data)
        if self.offset < self.size:
            return False
        if self._hash.hexdigest() != self.digest:
            got = self._hash.hexdigest()
            self._restart()
            raise RefusedError(
                codes.BLOB_MISMATCH, f"blob {self.digest[:12]}: its {self.size} bytes have SHA-256 {got[:12]}"
            )
        self._finish()
        return True

    def close(self) -> None:
        """Keep what was received, for later."""
        self._file.close()

    def _restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self.offset = 0

    def _finish(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._target.parent.mkdir(mode=0o700, exist_ok=True)
        self._part.rename(self._target)
        _sync_folder(self._target.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; Windows has no such call and does not need it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
