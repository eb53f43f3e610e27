"""What an author says of one data field: the dtype and shape of one example, and a bound for whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from plans.errors import TraceError
from protocol.manifest import DType

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Field", "as_fields"]


@dataclass(frozen=True)
class Field:
    """One example of a data field: `Field("float32", (64,))`, without the leading axis of examples.

    `below`, for int64 and int32 fields, promises 0 <= value < below: class labels, token ids. Nodes check it before
    they train. The loss "cross_entropy" sets it for its labels.

    Raises:
        TraceError: an unknown dtype, an open or empty dimension, or `below` on a field of floats.
    """

    dtype: DType
    shape: tuple[int, ...] = ()
    below: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in get_args(DType):
            raise TraceError(f"field dtype {self.dtype!r} is unknown, expected one of {', '.join(get_args(DType))}")
        object.__setattr__(self, "shape", tuple(self.shape))
        if any(not isinstance(size, int) or size < 1 for size in self.shape):
            raise TraceError(
                f"field shape {self.shape} has a dimension below 1; every dimension of an example is fixed: "
                "pad what varies to its longest, and leave the padding out by a mask"
            )
        if self.below is not None and (self.below < 1 or self.dtype not in ("int64", "int32")):
            raise TraceError(f"below={self.below} needs to be at least 1, on int64 or int32, got {self.dtype}")


def as_fields(given: Mapping[str, object], *, what: str) -> dict[str, Field]:
    """Fields by name, from `Field` values or from example tensors or arrays of ONE example.

    Raises:
        TraceError: nothing given, or a value that is neither.
    """
    if not given:
        raise TraceError(f"{what}: expected at least one field, got none")
    return {name: _as_field(name, value, what=what) for name, value in given.items()}


def _as_field(name: str, value: object, *, what: str) -> Field:
    if isinstance(value, Field):
        return value
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is None or shape is None:
        raise TraceError(f"{what} {name!r}: expected a Field, a tensor or an array, got {type(value).__name__}")
    return Field(str(dtype).removeprefix("torch."), tuple(int(size) for size in shape))  # type: ignore[arg-type]
