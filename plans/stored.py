"""A float32 vector in a file: what is asked for is in memory, the rest is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Stored"]

Vector = np.ndarray[Any, np.dtype[np.float32]]


class Stored:
    """Read and written by slices, as an array is: `stored[3:5]`. The file belongs to whoever made its folder."""

    def __init__(self, path: Path, size: int) -> None:
        """A new vector of `size` zeros, in place of any file at `path`."""
        self.path = path
        with path.open("wb") as file:
            file.truncate(4 * size)

    @classmethod
    def found(cls, path: Path) -> Stored:
        """The vector that a file holds, float32 in this machine's order of bytes."""
        stored = cls.__new__(cls)
        stored.path = path
        return stored

    @property
    def shape(self) -> tuple[int]:
        """How many numbers there are."""
        return (self.path.stat().st_size // 4,)

    def __getitem__(self, part: slice) -> Vector:
        start, stop, _ = part.indices(self.shape[0])
        return np.fromfile(self.path, np.float32, max(0, stop - start), offset=4 * start)

    def __setitem__(self, part: slice, values: Vector) -> None:
        start, stop, _ = part.indices(self.shape[0])
        if values.dtype != np.float32 or values.shape != (max(0, stop - start),):
            raise ValueError(f"expected float32[{max(0, stop - start)}], got {values.dtype}{list(values.shape)}")
        with self.path.open("r+b") as file:
            file.seek(4 * start)
            file.write(np.ascontiguousarray(values).data)
