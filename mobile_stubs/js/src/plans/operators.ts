/** The operators a node runs: arithmetic on tensors, of ONNX's own domain; nothing that reads or calls outside. */

const ELEMENTWISE = `
Abs Acos Acosh Add And Asin Asinh Atan Atanh BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil
Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity
IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu
Round Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Tan Tanh ThresholdedRelu Where Xor`;
const SHAPES = `
CenterCropPad Col2Im Compress Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten Gather
GatherElements GatherND NonZero OneHot Pad Range Reshape Resize ReverseSequence ScatterElements ScatterND
Shape Size Slice SpaceToDepth Split Squeeze Tile TopK Transpose Trilu Unique Unsqueeze`;
const REDUCTIONS = `
ArgMax ArgMin CumSum Hardmax LogSoftmax ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
ReduceMin ReduceProd ReduceSum ReduceSumSquare Softmax`;
const PRODUCTS = `
AveragePool BatchNormalization Conv ConvTranspose Einsum GRU Gemm GlobalAveragePool GlobalMaxPool
GroupNormalization InstanceNormalization LRN LSTM LayerNormalization MatMul MaxPool RNN`;
const CONTROL = "If Loop Scan";
const RANDOM = "Bernoulli RandomNormal RandomNormalLike RandomUniform RandomUniformLike";

/** Operator names of the domain "". Absent on purpose: sequences, maps, strings, optional and quantised values. */
export const ALLOWED: ReadonlySet<string> = new Set(
  `${ELEMENTWISE} ${SHAPES} ${REDUCTIONS} ${PRODUCTS} ${CONTROL} ${RANDOM}`.trim().split(/\s+/),
);
