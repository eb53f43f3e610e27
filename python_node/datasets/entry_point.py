"""Datasets from a Python function that the owner names in their own configuration; no plan or peer can name one."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping

import numpy as np

from python_node.datasets.dataset import Array
from python_node.errors import DatasetError

__all__ = ["call_entry_point", "is_entry_point"]

_ENTRY_POINT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_entry_point(source: str) -> bool:
    """Whether a source reads as `package.module:function`."""
    return _ENTRY_POINT.fullmatch(source) is not None


def call_entry_point(source: str, *, max_bytes: int) -> dict[str, Array]:
    """Import the module, call the function without arguments and take its dict of arrays.

    Raises:
        DatasetError: the import or the call failed, or the result is no dict of arrays of at most `max_bytes`.
    """
    module_name, function_name = source.split(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ImportError as error:
        raise DatasetError(f"{source}: cannot be imported: {error}; is it installed, or on PYTHONPATH?") from error
    except AttributeError:
        raise DatasetError(f"{source}: module {module_name} has no {function_name}") from None
    try:
        result = function()
    except Exception as error:  # the owner's code may raise anything; the cause stays attached
        raise DatasetError(f"{source}: raised {type(error).__name__} when called") from error
    if not isinstance(result, Mapping) or not all(isinstance(name, str) for name in result):
        raise DatasetError(f"{source}: returned {type(result).__name__}, expected a dict of arrays by field name")
    for name, array in result.items():
        if not isinstance(array, np.ndarray):
            raise DatasetError(f"{source}: field {name!r} is {type(array).__name__}, expected a numpy array")
    total = sum(array.nbytes for array in result.values())
    if total > max_bytes:
        raise DatasetError(f"{source}: returned {total} bytes, at most {max_bytes} are taken")
    # copies: the function may keep its arrays and go on writing into them
    return {name: np.array(array, dtype=array.dtype.newbyteorder("="), order="C") for name, array in result.items()}
