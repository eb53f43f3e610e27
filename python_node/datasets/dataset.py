"""One dataset in memory: named arrays of equal length, and what a node may say about them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from protocol.manifest import MAX_VECTOR, DataField, DatasetSchema, DType
from python_node.errors import DatasetError

__all__ = ["DTYPES", "MAX_FIELDS", "Array", "Dataset", "check_arrays", "check_finite", "is_name", "split"]

Array = npt.NDArray[Any]

DTYPES: tuple[str, ...] = get_args(DType)
MAX_FIELDS = 64
MAX_AXES = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_FINITE_TILE = 1 << 20


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Arrays of one dataset, by field name; the first axis counts examples.

    `arrays` is the training part, `holdout` the part that is only evaluated on (None where the owner keeps none).
    dtypes are those of `protocol.manifest.DType`. The arrays are made read-only. `repr` shows fields alone.

    Raises:
        DatasetError: a name, dtype or shape is not one of a dataset, or the two parts differ in their fields.
    """

    name: str
    arrays: dict[str, Array]
    holdout: dict[str, Array] | None = None

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise DatasetError(
                f"dataset name {self.name[:128]!r}: expected letters, digits and . _ / - (128 at most)"
            )
        check_arrays(self.arrays, where=f"dataset {self.name}")
        if self.holdout is not None:
            check_arrays(self.holdout, where=f"hold-out of dataset {self.name}")
            if _fields(self.holdout) != _fields(self.arrays):
                raise DatasetError(
                    f"dataset {self.name}: the training part has {_describe(self.arrays)}, "
                    f"the hold-out has {_describe(self.holdout)}"
                )
        for array in [*self.arrays.values(), *(self.holdout or {}).values()]:
            array.setflags(write=False)

    def __repr__(self) -> str:
        return f"Dataset({self.name}: {self.describe()})"

    def describe(self) -> str:
        """Names, dtypes and shapes of its fields, as `image float32[64], label int64[]`."""
        return _describe(self.arrays)

    @property
    def examples(self) -> int:
        """Examples of the training part."""
        return _length(self.arrays)

    @property
    def holdout_examples(self) -> int:
        """Examples held out; 0 where there is no hold-out."""
        return 0 if self.holdout is None else _length(self.holdout)

    def schema(self, *, reveal_examples: bool = False) -> DatasetSchema:
        """What the node advertises: names, dtypes and shapes of one example; never a value.

        `reveal_examples` adds the number of training examples, where the owner's policy shares it.
        """
        return DatasetSchema(
            name=self.name, fields=_fields(self.arrays), examples=self.examples if reveal_examples else None
        )


def is_name(text: str) -> bool:
    """Whether `text` may name a dataset or a field."""
    return _NAME.fullmatch(text) is not None


def check_arrays(arrays: Mapping[str, Array], *, where: str) -> None:
    """Check that arrays can be fields of one dataset.

    Raises:
        DatasetError: no field or too many, a bad name, dtype or shape, no examples, or unequal lengths.
    """
    if not 1 <= len(arrays) <= MAX_FIELDS:
        raise DatasetError(f"{where}: {len(arrays)} fields, expected 1 to {MAX_FIELDS}")
    for name, array in arrays.items():
        check_field(name, array.dtype, array.shape, where=where)
    lengths = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise DatasetError(f"{where}: fields differ in their number of examples: {told}")
    if 0 in lengths.values():
        raise DatasetError(f"{where}: no examples")


def check_field(name: str, dtype: np.dtype[Any], shape: tuple[int, ...], *, where: str) -> None:
    """Check what a header says of one array, before or after its values are read.

    Raises:
        DatasetError: the name, dtype or shape is not one of a dataset.
    """
    if not is_name(name):
        raise DatasetError(f"{where}: field name {name[:128]!r}: expected letters, digits and . _ / - (128 at most)")
    if dtype.hasobject or dtype.name not in DTYPES:
        raise DatasetError(f"{where}: field {name!r} is {dtype.name}, expected one of {', '.join(DTYPES)}")
    if not 1 <= len(shape) <= MAX_AXES + 1:
        raise DatasetError(
            f"{where}: field {name!r} has {len(shape)} axes, expected an axis of examples and {MAX_AXES} more at most"
        )
    if any(length > MAX_VECTOR for length in shape):
        raise DatasetError(f"{where}: field {name!r} has shape {list(shape)}, an axis holds {MAX_VECTOR} at most")


def check_finite(arrays: Mapping[str, Array], *, where: str) -> None:
    """Refuse NaN and infinity: one of them would silently spoil everybody's sum.

    Raises:
        DatasetError: names the field and the first index.
    """
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            continue
        rows = max(1, _FINITE_TILE // max(1, int(np.prod(array.shape[1:], dtype=np.int64))))
        for start in range(0, len(array), rows):
            finite = np.isfinite(array[start : start + rows])
            if not finite.all():
                index = np.argwhere(~finite)[0]
                index[0] += start
                place = ", ".join(str(i) for i in index)
                raise DatasetError(
                    f"{where}: field {name!r} is NaN or infinite at [{place}]; expected finite numbers"
                )


def split(
    arrays: dict[str, Array], fraction: float, *, where: str
) -> tuple[dict[str, Array], dict[str, Array] | None]:
    """Part examples into training and hold-out; the same length is always parted alike.

    The hold-out is the last `fraction` (0 <= fraction < 1) of a permutation seeded with the number of examples,
    both parts in file order, as spec 05 §6 says to every language. numpy promises PCG64's raw stream, but not that
    of `Generator.permutation`: a hold-out that moved with a numpy version would be trained on.

    Raises:
        DatasetError: the fraction is out of range, or one part would be empty.
    """
    if not 0 <= fraction < 1:
        raise DatasetError(f"{where}: holdout is {fraction}, expected at least 0 and less than 1")
    if fraction == 0:
        return arrays, None
    count = _length(arrays)
    held = max(1, round(count * fraction))
    if held >= count:
        raise DatasetError(f"{where}: holding out {fraction} of {count} examples leaves none to train on")
    order = np.argsort(np.random.PCG64(count).random_raw(count), kind="stable")
    training, kept = np.sort(order[: count - held]), np.sort(order[count - held :])
    return (
        {name: array[training] for name, array in arrays.items()},
        {name: array[kept] for name, array in arrays.items()},
    )


def _length(arrays: Mapping[str, Array]) -> int:
    return len(next(iter(arrays.values())))


def _fields(arrays: Mapping[str, Array]) -> tuple[DataField, ...]:
    return tuple(
        msgspec.convert({"name": name, "dtype": array.dtype.name, "shape": array.shape[1:]}, DataField)
        for name, array in sorted(arrays.items())
    )


def _describe(arrays: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} {array.dtype.name}{list(array.shape[1:])}" for name, array in sorted(arrays.items()))
