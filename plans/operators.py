"""The operators a node runs: arithmetic on tensors, of ONNX's own domain; nothing that reads or calls outside."""

from __future__ import annotations

__all__ = ["ALLOWED", "WEB"]

_ELEMENTWISE = """
Abs Acos Acosh Add And Asin Asinh Atan Atanh BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil
Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity
IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu
Round Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Tan Tanh ThresholdedRelu Where Xor
"""
_SHAPES = """
CenterCropPad Col2Im Compress Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten Gather
GatherElements GatherND NonZero OneHot Pad Range Reshape Resize ReverseSequence ScatterElements ScatterND
Shape Size Slice SpaceToDepth Split Squeeze Tile TopK Transpose Trilu Unique Unsqueeze
"""
_REDUCTIONS = """
ArgMax ArgMin CumSum Hardmax LogSoftmax ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
ReduceMin ReduceProd ReduceSum ReduceSumSquare Softmax
"""
_PRODUCTS = """
AveragePool BatchNormalization Conv ConvTranspose Einsum GRU Gemm GlobalAveragePool GlobalMaxPool
GroupNormalization InstanceNormalization LRN LSTM LayerNormalization MatMul MaxPool RNN
"""
_CONTROL = "If Loop Scan"
_RANDOM = "Bernoulli RandomNormal RandomNormalLike RandomUniform RandomUniformLike"

ALLOWED = frozenset(f"{_ELEMENTWISE} {_SHAPES} {_REDUCTIONS} {_PRODUCTS} {_CONTROL} {_RANDOM}".split())
"""Operator names of the domain "". Absent on purpose: sequences, maps, strings, optional values, quantised types, and
everything of another domain."""

WEB = ALLOWED
"""Those that onnxruntime-web's wasm build has. `tests/js/test_web_operators.py` loads a model of each in the version
of the JavaScript package (1.30.0, in Node.js), and fails where this list says something else."""
