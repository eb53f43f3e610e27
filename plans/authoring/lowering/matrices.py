"""Matrix products. A transposed operand is read in place by Gemm instead of being copied by Transpose."""

from __future__ import annotations

import torch

from plans.authoring.lowering.registry import Lowering, Value, lowers

aten = torch.ops.aten


@lowers(aten.mm.default)
def mm(to: Lowering, left: Value, right: Value) -> str:
    """Product of two matrices."""
    return product(to, left.name, right.name)


@lowers(aten.addmm.default)
def addmm(to: Lowering, start: Value, left: Value, right: Value, *, beta: float = 1, alpha: float = 1) -> str:
    """Beta * start + alpha * left @ right."""
    return product(to, left.name, right.name, start.name, alpha=alpha, beta=beta)


def product(
    to: Lowering, left: str, right: str, start: str | None = None, *, alpha: float = 1, beta: float = 1
) -> str:
    """Alpha * left @ right + beta * start, two-dimensional."""
    first, left_transposed = _untransposed(to, left)
    second, right_transposed = _untransposed(to, right)
    if start is None and alpha == 1 and not left_transposed and not right_transposed:
        return to.op("MatMul", first, second)
    return to.op(
        "Gemm",
        *((first, second) if start is None else (first, second, start)),
        alpha=float(alpha),
        beta=float(beta),
        transA=int(left_transposed),
        transB=int(right_transposed),
    )


def _untransposed(to: Lowering, name: str) -> tuple[str, bool]:
    source = to.origin(name, "Transpose")
    return source, source != name


@lowers(aten.bmm.default)
def bmm(to: Lowering, left: Value, right: Value) -> str:
    """Products of matrices, one per leading index."""
    return _products(to, left, right)


def _products(to: Lowering, left: Value, right: Value) -> str:
    """MatMul repeats a matrix for every leading index without copying it; of two such, one stays repeated."""
    matrix = to.graph.repeated.get(right.name)
    if matrix is not None:
        return to.op("MatMul", left, matrix)
    return to.op("MatMul", to.graph.repeated.get(left.name, left.name), right)


@lowers(aten.baddbmm.default)
def baddbmm(to: Lowering, start: Value, left: Value, right: Value, *, beta: float = 1, alpha: float = 1) -> str:
    """Beta * start + alpha * left @ right, per leading index."""
    result = _products(to, left, right)
    if alpha != 1:
        result = to.op("Mul", result, to.scalar(alpha))
    if beta == 0:
        return result
    other = start.name if beta == 1 else to.op("Mul", start, to.scalar(beta))
    return to.op("Add", other, result)
