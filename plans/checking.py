"""Does a dataset in memory fit a plan, and can it be trained on: dtypes, shapes, finite numbers, labels in range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from plans.errors import UnusableDataError

if TYPE_CHECKING:
    from protocol.manifest import DataField, PlanManifest

__all__ = ["check_examples"]

Array = np.ndarray[Any, Any]


def check_examples(manifest: PlanManifest, data: Mapping[str, Array], fields: Sequence[DataField]) -> int:
    """Check the given fields of a dataset and give its number of examples.

    Raises:
        UnusableDataError: a field is missing or of another dtype or shape, lengths differ, nothing is there, a number
            is NaN or infinite, or a whole number is outside 0 <= value < below. Values are never in the message.
    """
    what = f"plan {manifest.name}"
    lengths = {}
    for field in fields:
        if field.name not in data:
            raise UnusableDataError(
                f"{what} reads field {field.name!r}; the data has {', '.join(sorted(data)) or 'none'}"
            )
        array = data[field.name]
        _check_form(what, field, array)
        _check_values(what, field, array)
        lengths[field.name] = len(array)
    if len(set(lengths.values())) > 1:
        raise UnusableDataError(f"{what}: fields have different numbers of examples: {lengths}")
    examples = next(iter(lengths.values()))
    if examples == 0:
        raise UnusableDataError(f"{what}: the data has no examples")
    return examples


def _check_form(what: str, field: DataField, array: Array) -> None:
    fits = array.ndim == 1 + len(field.shape) and all(
        want in (-1, have) for want, have in zip(field.shape, array.shape[1:], strict=True)
    )
    if array.dtype != np.dtype(field.dtype) or not fits:
        raise UnusableDataError(
            f"{what} reads {field.name!r} as {field.dtype}{list(field.shape)} per example; "
            f"the data has {array.dtype}{list(array.shape[1:])}"
        )


def _check_values(what: str, field: DataField, array: Array) -> None:
    if field.dtype in ("float32", "float64") and not np.isfinite(array).all():
        bad = int(np.count_nonzero(~np.isfinite(array)))
        raise UnusableDataError(f"{what}: field {field.name!r} holds {bad} values that are NaN or infinite")
    if field.below is not None and array.size and (array.min() < 0 or array.max() >= field.below):
        raise UnusableDataError(f"{what}: field {field.name!r} holds values outside 0 <= value < {field.below}")
