"""Operators that work element by element: arithmetic, comparison, activation, choice and change of dtype."""

from __future__ import annotations

import math
from typing import Any

import torch

from plans.authoring.lowering.registry import Lowering, Value, lowers, onnx_type
from plans.errors import TraceError

aten = torch.ops.aten

_SAME_NAME = {
    "Abs": aten.abs,
    "Acos": aten.acos,
    "Acosh": aten.acosh,
    "Asin": aten.asin,
    "Asinh": aten.asinh,
    "Atan": aten.atan,
    "Atanh": aten.atanh,
    "Ceil": aten.ceil,
    "Cos": aten.cos,
    "Cosh": aten.cosh,
    "Erf": aten.erf,
    "Exp": aten.exp,
    "Floor": aten.floor,
    "Log": aten.log,
    "Neg": aten.neg,
    "Reciprocal": aten.reciprocal,
    "Relu": aten.relu,
    "Round": aten.round,
    "Sigmoid": aten.sigmoid,
    "Sign": aten.sign,
    "Sin": aten.sin,
    "Sinh": aten.sinh,
    "Sqrt": aten.sqrt,
    "Tan": aten.tan,
    "Tanh": aten.tanh,
    "IsNaN": aten.isnan,
    "IsInf": aten.isinf,
    "Not": aten.logical_not,
}


def _enter_same_name(kind: str, operator: Any) -> None:
    @lowers(operator.default)
    def unary(to: Lowering, value: Value) -> str:
        return to.op(kind, value)


for _kind, _operator in _SAME_NAME.items():
    _enter_same_name(_kind, _operator)


@lowers(aten.alias.default, aten.clone.default, aten.detach.default, aten.lift_fresh_copy.default)
def same(_to: Lowering, value: Value, **_layout: object) -> str:
    """Copies and views of the whole: values in a graph never change, so the value itself."""
    return value.name


@lowers(aten.rsqrt.default)
def rsqrt(to: Lowering, value: Value) -> str:
    """1 / sqrt(x)."""
    return to.op("Reciprocal", to.op("Sqrt", value))


@lowers(aten.log1p.default)
def log1p(to: Lowering, value: Value) -> str:
    """log(1 + x) as 2 atanh(x / (2 + x)), which keeps its precision for small x."""
    two = to.scalar(2)
    return to.op("Mul", to.op("Atanh", to.op("Div", value, to.op("Add", value, two))), two)


@lowers(aten.expm1.default)
def expm1(to: Lowering, value: Value) -> str:
    """exp(x) - 1 as tanh(x/2) (exp(x) + 1), which keeps its precision for small x."""
    half = to.op("Tanh", to.op("Mul", value, to.scalar(0.5)))
    wide = to.op("Mul", half, to.op("Add", to.op("Exp", value), to.scalar(1)))
    exact = to.op("Sub", to.op("Exp", value), to.scalar(1))
    return to.op("Where", to.op("Less", to.op("Abs", value), to.scalar(0.5)), wide, exact)


def _promoted(to: Lowering, kind: str, left: Any, right: Any) -> str:
    return to.op(kind, to.operand(left, to.dtype), to.operand(right, to.dtype))


@lowers(aten.add.Tensor, aten.add.Scalar)
def add(to: Lowering, left: Any, right: Any, *, alpha: float = 1) -> str:
    """Left + alpha * right; of booleans, their union."""
    if to.dtype == torch.bool:
        return _promoted(to, "Or", left, right)
    other = to.operand(right, to.dtype)
    if alpha != 1:
        other = to.op("Mul", other, to.scalar(alpha))
    return to.op("Add", to.operand(left, to.dtype), other)


@lowers(aten.sub.Tensor, aten.sub.Scalar)
def sub(to: Lowering, left: Any, right: Any, *, alpha: float = 1) -> str:
    """Left - alpha * right."""
    fused = _descended(to, left, right) if alpha == 1 else None
    if fused is not None:
        return fused
    other = to.operand(right, to.dtype)
    if alpha != 1:
        other = to.op("Mul", other, to.scalar(alpha))
    return to.op("Sub", to.operand(left, to.dtype), other)


def _descended(to: Lowering, left: Any, right: Any) -> str | None:
    """Weight - rate * (a @ b) as one Gemm that adds (-rate * a) @ b to the weight; None for another pattern.

    The step of a linear layer's weight: it saves two passes over the whole weight.
    """
    if not isinstance(left, Value) or not isinstance(right, Value) or left.rank != 2 or left.shape != right.shape:
        return None
    scaled = to.graph.producer(right.name)
    if scaled is None or scaled.op_type != "Mul":
        return None
    rate, product = scaled.input
    made = to.graph.producer(product)
    if made is None or made.op_type != "Gemm" or len(made.input) != 2 or rate not in to.graph.scalars:
        return None
    flags = {name: to.graph.attribute(product, name, 0) for name in ("transA", "transB")}
    small = to.op("Mul", made.input[0], rate)
    return to.op("Gemm", small, made.input[1], left, alpha=-1.0, beta=1.0, **flags)


@lowers(aten.mul.Tensor, aten.mul.Scalar)
def mul(to: Lowering, left: Any, right: Any) -> str:
    """Left * right; a factor of one is left out, booleans multiply as their intersection."""
    if to.dtype == torch.bool:
        return _promoted(to, "And", left, right)
    if not isinstance(right, Value) and right == 1 and isinstance(left, Value):
        return to.cast(left, to.dtype)
    return _promoted(to, "Mul", left, right)


@lowers(aten.div.Tensor, aten.div.Scalar)
def div(to: Lowering, left: Any, right: Any) -> str:
    """Left / right, in floats."""
    return _promoted(to, "Div", left, right)


@lowers(aten.div.Tensor_mode, aten.div.Scalar_mode)
def div_mode(to: Lowering, left: Any, right: Any, *, rounding_mode: str | None = None) -> str:
    """Division rounded down or towards zero."""
    if rounding_mode is None:
        return _promoted(to, "Div", left, right)
    if not to.dtype.is_floating_point:
        quotient = _promoted(to, "Div", left, right)
        return quotient if rounding_mode == "trunc" else _floor_of_ints(to, left, right, quotient)
    quotient = _promoted(to, "Div", left, right)
    if rounding_mode == "floor":
        return to.op("Floor", quotient)
    return to.op("Mul", to.op("Sign", quotient), to.op("Floor", to.op("Abs", quotient)))


def _floor_of_ints(to: Lowering, left: Any, right: Any, quotient: str) -> str:
    numerator, divisor = to.operand(left, to.dtype), to.operand(right, to.dtype)
    rest = to.op("Sub", numerator, to.op("Mul", quotient, divisor))
    zero = to.scalar(0)
    opposite = to.op("Xor", to.op("Less", rest, zero), to.op("Less", divisor, zero))
    uneven = to.op("Not", to.op("Equal", rest, zero))
    return to.op("Sub", quotient, to.op("Cast", to.op("And", opposite, uneven), to=onnx_type(to.dtype)))


@lowers(aten.remainder.Scalar, aten.remainder.Tensor)
def remainder(to: Lowering, left: Any, right: Any) -> str:
    """Left - floor(left / right) * right: the sign is the divisor's."""
    if not to.dtype.is_floating_point:
        return to.op("Mod", to.operand(left, to.dtype), to.operand(right, to.dtype))
    numerator, divisor = to.operand(left, to.dtype), to.operand(right, to.dtype)
    return to.op("Sub", numerator, to.op("Mul", to.op("Floor", to.op("Div", numerator, divisor)), divisor))


@lowers(aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.pow.Scalar)
def power(to: Lowering, base: Any, exponent: Any) -> str:
    """Base ** exponent; the powers that optimizers and losses use are written without Pow."""
    if isinstance(base, Value) and not isinstance(exponent, Value):
        value = to.cast(base, to.dtype)
        if exponent == 1:
            return value
        if exponent == 2:
            return to.op("Mul", value, value)
        if exponent == 0.5:
            return to.op("Sqrt", value)
    return _promoted(to, "Pow", base, exponent)


@lowers(aten.maximum.default)
def maximum(to: Lowering, left: Value, right: Value) -> str:
    """The larger of two."""
    return _promoted(to, "Max", left, right)


@lowers(aten.minimum.default)
def minimum(to: Lowering, left: Value, right: Value) -> str:
    """The smaller of two."""
    return _promoted(to, "Min", left, right)


@lowers(aten.clamp.default, aten.clamp.Tensor, aten.hardtanh.default)
def clamp(to: Lowering, value: Value, low: Any = None, high: Any = None) -> str:
    """Values below `low` become `low`, above `high` become `high`."""
    name = to.cast(value, to.dtype)
    if low is not None:
        name = to.op("Max", name, to.operand(low, to.dtype))
    return name if high is None else to.op("Min", name, to.operand(high, to.dtype))


@lowers(aten.clamp_min.default)
def clamp_min(to: Lowering, value: Value, low: Any) -> str:
    """Values below `low` become `low`."""
    return to.op("Max", to.cast(value, to.dtype), to.operand(low, to.dtype))


@lowers(aten.clamp_max.default)
def clamp_max(to: Lowering, value: Value, high: Any) -> str:
    """Values above `high` become `high`."""
    return to.op("Min", to.cast(value, to.dtype), to.operand(high, to.dtype))


def _compared(to: Lowering, kind: str, left: Any, right: Any) -> str:
    dtypes = [side.dtype for side in (left, right) if isinstance(side, Value)]
    common = torch.promote_types(*dtypes) if len(dtypes) == 2 else dtypes[0]
    if not isinstance(right, Value) and isinstance(right, float) and not common.is_floating_point:
        common = torch.float32
    if common == torch.bool:
        # comparing truth values: ONNX compares numbers only, Equal apart
        common = torch.int32 if kind != "Equal" else common
    return to.op(kind, to.operand(left, common), to.operand(right, common))


def _enter_comparison(kind: str, operator: Any) -> None:
    @lowers(operator.Tensor, operator.Scalar)
    def comparison(to: Lowering, left: Any, right: Any) -> str:
        return _compared(to, kind, left, right)


for _kind, _operator in {
    "Equal": aten.eq,
    "Less": aten.lt,
    "LessOrEqual": aten.le,
    "Greater": aten.gt,
    "GreaterOrEqual": aten.ge,
}.items():
    _enter_comparison(_kind, _operator)


@lowers(aten.ne.Tensor, aten.ne.Scalar)
def ne(to: Lowering, left: Any, right: Any) -> str:
    """Left != right."""
    return to.op("Not", _compared(to, "Equal", left, right))


def _enter_logical(kind: str, *operators: object) -> None:
    @lowers(*operators)
    def logical(to: Lowering, left: Any, right: Any) -> str:
        if to.dtype != torch.bool:
            raise TraceError("bitwise operators on whole numbers have no lowering; compare, or use booleans")
        return to.op(kind, to.operand(left, torch.bool), to.operand(right, torch.bool))


_enter_logical("And", aten.logical_and.default, aten.bitwise_and.Tensor, aten.bitwise_and.Scalar)
_enter_logical("Or", aten.logical_or.default, aten.bitwise_or.Tensor, aten.bitwise_or.Scalar)
_enter_logical("Xor", aten.logical_xor.default, aten.bitwise_xor.Tensor, aten.bitwise_xor.Scalar)


@lowers(aten.bitwise_not.default)
def bitwise_not(to: Lowering, value: Value) -> str:
    """Not, of booleans."""
    if value.dtype != torch.bool:
        raise TraceError("bitwise operators on whole numbers have no lowering; compare, or use booleans")
    return to.op("Not", value)


@lowers(aten.where.self)
def where(to: Lowering, condition: Value, left: Any, right: Any) -> str:
    """`left` where the condition holds, `right` elsewhere; the gradient of ReLU is written without Where."""
    if isinstance(right, Value) and _is_zero(to, left):
        active = _relu_of_condition(to, condition)
        if active is not None and right.name in to.graph.notes and to.graph.notes[right.name].image.name == active:
            return str(to.graph.notes[right.name].where_positive(to))
        if active is not None and right.dtype == to.dtype:
            # ReLU gives zero or more, so its sign is the mask
            return to.op("Mul", right, to.op("Sign", active))
    return to.op("Where", condition, to.operand(left, to.dtype), to.operand(right, to.dtype))


def _is_zero(to: Lowering, value: Any) -> bool:
    array = to.graph.array(value.name) if isinstance(value, Value) else None
    return array is not None and array.ndim == 0 and bool(array == 0)


def _relu_of_condition(to: Lowering, condition: Value) -> str | None:
    """The result of ReLU that a condition compares with `<= 0`, or None."""
    node = to.graph.producer(condition.name)
    if node is None or node.op_type != "LessOrEqual":
        return None
    bound, made = to.graph.array(node.input[1]), to.graph.producer(node.input[0])
    is_relu = made is not None and made.op_type == "Relu"
    return str(node.input[0]) if is_relu and bound is not None and bound.ndim == 0 and bound == 0 else None


@lowers(aten._to_copy.default, torch.ops.prims.convert_element_type.default)  # noqa: SLF001 - PyTorch's name
def to_copy(to: Lowering, value: Value, _dtype: object = None, **_options: object) -> str:
    """Another dtype."""
    return to.cast(value, to.dtype)


@lowers(aten.gelu.default)
def gelu(to: Lowering, value: Value, *, approximate: str = "none") -> str:
    """X Phi(x), or its tanh form (Hendrycks and Gimpel, 2016)."""
    half_x = to.op("Mul", value, to.scalar(0.5))
    if approximate == "none":
        inner = to.op("Erf", to.op("Mul", value, to.scalar(math.sqrt(0.5))))
    else:
        cube = to.op("Mul", to.op("Mul", value, value), value)
        sum_ = to.op("Add", value, to.op("Mul", cube, to.scalar(0.044715)))
        inner = to.op("Tanh", to.op("Mul", sum_, to.scalar(math.sqrt(2 / math.pi))))
    return to.op("Mul", half_x, to.op("Add", inner, to.scalar(1)))


@lowers(aten.elu.default)
def elu(to: Lowering, value: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> str:
    """Exponential linear unit, with the scales that make it SELU."""
    below = to.op(
        "Mul", to.op("Elu", to.op("Mul", value, to.scalar(input_scale)), alpha=1.0), to.scalar(alpha * scale)
    )
    above = to.op("Mul", value, to.scalar(scale))
    return to.op("Where", to.op("Greater", value, to.scalar(0)), above, below)


@lowers(aten.leaky_relu.default)
def leaky_relu(to: Lowering, value: Value, slope: float = 0.01) -> str:
    """X above zero, slope * x below."""
    return to.op("LeakyRelu", value, alpha=float(slope))
