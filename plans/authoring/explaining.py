"""What PyTorch says when a model cannot be traced, in words that tell an author what to write instead."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from plans.authoring.places import of_error

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FIXED_BATCH", "explained", "instead_of"]

FIXED_BATCH = "use x.shape[0] or -1, as in view(-1, 8), so that any batch size works"

_NO_VALUES = "write torch.where instead of if, and keep numbers as tensors instead of float(), .item() or print"

_REASONS = (
    (r"DataDependent|data-dependent", "the model asks for a value while only shapes are known", _NO_VALUES),
    (
        r"\.numpy\(\) is not supported|unallocated storage",
        "the model leaves PyTorch, where neither a graph nor a gradient follows it",
        "use functions of torch instead of numpy, tolist() or torch.tensor(x)",
    ),
    (
        r"modified by an inplace operation|a leaf Variable that requires grad is being used in an in-place",
        "the model writes into a tensor that its gradient needs",
        "make a new tensor, as in y = x + 1 instead of x += 1 or x.add_(1)",
    ),
    (r"is invalid for input of size", "the model fixes the batch size", FIXED_BATCH),
    (
        r"forward\(\) (takes|missing|got)",
        "",  # what Python says is clear
        "let it take one tensor for each of inputs=, in order; wrap a model that takes a dict, keywords or more",
    ),
    (
        r"_linalg_check_errors",
        "the model solves or inverts matrices, which no ONNX operator does",
        "use products of matrices, or do this part outside the plan",
    ),
    (
        r"not compiled with CUDA|Found no NVIDIA driver",
        "the model asks for a graphics card, and plans run on processors",
        "leave .cuda() and .to(device) out of forward",
    ),
    (
        r"must have the same dtype|expected scalar type|same dtype",
        "the model multiplies tensors of different dtypes, and plans compute in float32",
        "give a field of dtype float32, or write x.float()",
    ),
)
_OPERATORS = (
    (r"\._local_scalar_dense", _NO_VALUES),
    (r"\.(randn|normal|randint|randperm|multinomial|poisson)", "draw uniform numbers by torch.rand or nn.Dropout"),
    (
        r"\.(sort|argsort|median|kthvalue)\b",
        "use torch.topk or torch.max, or sort the data before it gets to the node",
    ),
    (r"\.(_fft|stft)", "transform the data before it gets to the node, or use a convolution"),
    (r"\.(_linalg|linalg|cholesky|geqrf)", "use products of matrices, or do this part outside the plan"),
)
_SYMBOL = re.compile(r"\b[su]\d+\b")
_GENERAL = "write this part with other operators; docs/coverage.md lists the layers that work"


def explained(
    error: Exception, writes: Sequence[str] = (), *, what: str = "PyTorch could not trace the model"
) -> str:
    """What failed, where, why, and what to write instead; `writes` are places that change tensors in place."""
    said = (str(error).strip().splitlines() or [""])[0]
    reason, instead = f"{type(error).__name__}: {_SYMBOL.sub('batch', said)}", ""
    place = of_error(error)
    for pattern, why, advice in _REASONS:
        if re.search(pattern, f"{type(error).__name__}: {error}"):
            reason, instead = why or reason, f"; {advice}"
            if "inplace" in pattern and writes:
                # autograd finds out later, outside of every module
                place = "; ".join(dict.fromkeys(writes))
            break
    where = f" ({place})" if place else ""
    return f"{what}{where}: {reason}{instead}"


def instead_of(operator: object) -> str:
    """What an author may use in place of an operator that has no lowering."""
    for pattern, advice in _OPERATORS:
        if re.search(pattern, str(operator)):
            return advice
    return _GENERAL
