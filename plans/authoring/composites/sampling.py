"""Bags of embeddings, and pooling and resizing between sizes that do not divide each other.

Averages and interpolations of fixed sizes are linear and separable, so each is a product with a constant matrix per
dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from plans.errors import TraceError

__all__ = ["adaptive_average", "adaptive_max", "embedding_bag", "interpolate"]

Matrix = np.ndarray[Any, np.dtype[np.float32]]


def embedding_bag(
    index: Tensor,
    table: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,  # noqa: FBT001, FBT002 - PyTorch's order, as are those below
    mode: str = "mean",
    sparse: bool = False,  # noqa: FBT001, FBT002
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,  # noqa: FBT001, FBT002
    padding_idx: int | None = None,
) -> Tensor:
    """Sum, mean or largest of the rows that each bag [batch, places] names.

    Raises:
        TraceError: bags by offsets, `max_norm` or `scale_grad_by_freq`.
    """
    del norm_type, sparse, include_last_offset
    if offsets is not None or index.dim() != 2 or max_norm is not None or scale_grad_by_freq:
        raise TraceError(
            "EmbeddingBag: expected bags [batch, places], without offsets, max_norm or scale_grad_by_freq"
        )
    rows = functional.embedding(index, table, padding_idx=padding_idx)
    real = None if padding_idx is None else (index != padding_idx).unsqueeze(-1)
    if mode == "max":
        return (rows if real is None else rows.masked_fill(~real, -math.inf)).amax(1)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    total = (rows if real is None else rows * real).sum(1)
    if mode == "sum":
        return total
    return total / (index.shape[1] if real is None else real.sum(1).clamp(min=1))


def adaptive_average(spatial: int) -> Callable[[Tensor, Any], Tensor]:
    """`torch.nn.functional.adaptive_avg_pool{spatial}d`."""

    def pool(value: Tensor, output_size: Any) -> Tensor:
        sizes = _sizes(value, output_size, spatial)
        if all(size == 1 for size in sizes):
            return value.mean(list(range(-spatial, 0)), keepdim=True)
        return _separable(
            value, [_averages(have, want) for have, want in zip(_spatial(value, spatial), sizes, strict=True)]
        )

    return pool


def adaptive_max(spatial: int) -> Callable[..., Tensor]:
    """`torch.nn.functional.adaptive_max_pool{spatial}d`, without indices."""

    def pool(value: Tensor, output_size: Any, return_indices: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - PyTorch's order
        if return_indices:
            raise TraceError("adaptive max pooling: return_indices=True has no lowering")
        for axis, want in enumerate(_sizes(value, output_size, spatial)):
            dim = value.dim() - spatial + axis
            value = torch.cat(
                [value.narrow(dim, a, b - a).amax(dim, keepdim=True) for a, b in _bounds(value.shape[dim], want)], dim
            )
        return value

    return pool


def interpolate(
    value: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,  # noqa: FBT001 - PyTorch's order
    recompute_scale_factor: bool | None = None,  # noqa: FBT001
    antialias: bool = False,  # noqa: FBT001, FBT002
) -> Tensor:
    """Nearest or linear resizing from and to fixed sizes.

    Raises:
        TraceError: another mode, or antialiasing.
    """
    del recompute_scale_factor
    spatial = value.dim() - 2
    if antialias or mode not in ("nearest", "linear", "bilinear", "trilinear"):
        raise TraceError(f"interpolate: mode {mode!r} has no lowering; use nearest or (bi)linear without antialias")
    have = _spatial(value, spatial)
    factors = [scale_factor] * spatial if isinstance(scale_factor, int | float) else scale_factor
    want = (
        _sizes(value, size, spatial)
        if size is not None
        else [int(dim * factor) for dim, factor in zip(have, factors, strict=True)]
    )
    steps = [1 / f for f in factors] if size is None else [h / w for h, w in zip(have, want, strict=True)]
    matrix = _nearest if mode == "nearest" else _linear
    return _separable(
        value, [matrix(h, w, s, bool(align_corners)) for h, w, s in zip(have, want, steps, strict=True)]
    )


def _spatial(value: Tensor, spatial: int) -> list[int]:
    sizes = list(value.shape[-spatial:])
    if not all(isinstance(size, int) for size in sizes):
        raise TraceError("pooling: spatial sizes must be fixed; only the batch may vary")
    return sizes


def _sizes(value: Tensor, wanted: Any, spatial: int) -> list[int]:
    """The wanted sizes, one per dimension; None keeps a dimension."""
    given = [wanted] * spatial if isinstance(wanted, int) or wanted is None else list(wanted)
    return [have if want is None else int(want) for have, want in zip(_spatial(value, spatial), given, strict=True)]


def _separable(value: Tensor, matrices: Sequence[Matrix]) -> Tensor:
    """Each of the last dimensions multiplied by its matrix [to, from]."""
    first = value.dim() - len(matrices)
    for axis, matrix in enumerate(matrices):
        dim = first + axis
        if not np.array_equal(matrix, np.eye(len(matrix), matrix.shape[1])):
            value = (value.transpose(dim, -1) @ torch.tensor(matrix.T.tolist(), dtype=value.dtype)).transpose(dim, -1)
    return value


def _bounds(have: int, want: int) -> list[tuple[int, int]]:
    """Where each adaptive window begins and ends, as PyTorch rounds."""
    return [(at * have // want, -(-(at + 1) * have // want)) for at in range(want)]


def _averages(have: int, want: int) -> Matrix:
    matrix = np.zeros((want, have), np.float32)
    for row, (begin, end) in enumerate(_bounds(have, want)):
        matrix[row, begin:end] = 1 / (end - begin)
    return matrix


def _nearest(have: int, want: int, step: float, _align: bool) -> Matrix:  # noqa: FBT001 - called by position
    matrix = np.zeros((want, have), np.float32)
    for row in range(want):
        matrix[row, min(int(row * step), have - 1)] = 1
    return matrix


def _linear(have: int, want: int, step: float, align: bool) -> Matrix:  # noqa: FBT001 - called by position
    matrix = np.zeros((want, have), np.float32)
    for row in range(want):
        at = row * (have - 1) / max(want - 1, 1) if align else max((row + 0.5) * step - 0.5, 0.0)
        low = min(int(at), have - 1)
        matrix[row, low] += 1 - (at - low)
        matrix[row, min(low + 1, have - 1)] += at - low
    return matrix
