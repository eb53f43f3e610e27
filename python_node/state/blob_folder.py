"""A folder of bytes named by their SHA-256."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from protocol.encoding import digest_of, parse_hex
from protocol.errors import EncodingError
from python_node.errors import StateError
from python_node.state.durable import PARTIAL_SUFFIX, as_state_errors, write_durably

__all__ = ["BlobFolder"]


class BlobFolder:
    """Each file's name is the digest of its bytes; writing one twice changes nothing."""

    def __init__(self, folder: Path) -> None:
        """Make the folder where it is missing and drop what a killed process left half-written.

        Raises:
            OSError: the folder cannot be used.
        """
        folder.mkdir(mode=0o700, exist_ok=True)
        for partial in folder.glob(f"*{PARTIAL_SUFFIX}"):
            partial.unlink()
        self._folder = folder

    def save(self, digest: str, data: bytes | memoryview) -> None:
        """Keep bytes, on disk when this returns.

        Raises:
            StateError: the bytes have another digest, or cannot be written.
        """
        path = self._path(digest)
        found = digest_of(data)
        if found != digest:
            raise StateError(f"{path}: not written, its bytes have digest {found}")
        with as_state_errors(str(path)):
            if self.load(digest) is None:
                write_durably(path, data)

    def load(self, digest: str) -> bytes | None:
        """The bytes, or None where the file is missing or no longer has its digest.

        Raises:
            StateError: the file is there and cannot be read.
        """
        path = self._path(digest)
        with as_state_errors(str(path)):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                return None
        return data if digest_of(data) == digest else None

    def forget(self, digest: str) -> None:
        """Delete a file; a missing one is no error.

        Raises:
            StateError: the file cannot be deleted.
        """
        path = self._path(digest)
        with as_state_errors(str(path)):
            path.unlink(missing_ok=True)

    def forget_except(self, keep: Container[str]) -> int:
        """Delete every file whose digest is not in `keep`; gives how many.

        Raises:
            StateError: a file cannot be deleted.
        """
        with as_state_errors(str(self._folder)):
            others = [path for path in self._folder.iterdir() if path.name not in keep]
            for path in others:
                path.unlink()
        return len(others)

    def _path(self, digest: str) -> Path:
        try:
            parse_hex(digest, what=f"file in {self._folder}")  # a digest with a slash in it would name another file
        except EncodingError as error:
            raise StateError(str(error)) from None
        return self._folder / digest
