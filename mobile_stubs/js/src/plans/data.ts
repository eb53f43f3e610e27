/** An owner's examples in memory, and whether they fit a plan. Values never stand in an error. */

import { UnusableDataError } from "../node/errors.js";
import type { Tensor, TensorData } from "../node/platform.js";
import type { DataField, DatasetSchema } from "../protocol/manifest.js";

/** One field of a dataset: `data` is flat, `shape` that of one example. */
export interface FieldData {
  readonly dtype: DataField["dtype"];
  readonly shape: readonly number[];
  readonly data: TensorData;
  /** On whole numbers: every value is at least 0 and below this. */
  readonly below?: number;
}

/** A dataset of one owner. `heldOut` of its last examples are kept for evaluation and never trained on. */
export interface Dataset {
  readonly name: string;
  readonly fields: Readonly<Record<string, FieldData>>;
  readonly heldOut?: number;
}

const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  bool: Uint8Array,
} as const;

/** An array of the kind a dtype takes. */
export function newArray(dtype: FieldData["dtype"], length: number): TensorData {
  return new ARRAYS[dtype](length);
}

/** Numbers of one example. */
export function itemSize(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/**
 * How many examples a dataset has.
 *
 * @throws UnusableDataError fields of different lengths, of the wrong kind of array, or with values out of range.
 */
export function countExamples(dataset: Dataset): number {
  const counts = Object.entries(dataset.fields).map(([name, field]) => {
    const what = `dataset ${dataset.name}, field ${name}`;
    if (!(field.data instanceof ARRAYS[field.dtype])) throw new UnusableDataError(`${what}: ${field.dtype} takes another array`);
    const count = field.data.length / itemSize(field.shape);
    if (!Number.isInteger(count)) {
      throw new UnusableDataError(`${what}: ${field.data.length} numbers are no whole examples of [${field.shape}]`);
    }
    checkValues(field, what);
    return count;
  });
  const [first = 0] = counts;
  if (counts.some((count) => count !== first)) throw new UnusableDataError(`dataset ${dataset.name}: fields have ${counts} examples`);
  const heldOut = dataset.heldOut ?? 0;
  if (!Number.isInteger(heldOut) || heldOut < 0 || heldOut >= first) {
    throw new UnusableDataError(`dataset ${dataset.name}: ${heldOut} of ${first} examples held out leave none to train on`);
  }
  return first;
}

function checkValues(field: FieldData, what: string): void {
  let bad = 0;
  for (const value of field.data) {
    const number = Number(value);
    if (!Number.isFinite(number) || (field.below !== undefined && (number < 0 || number >= field.below))) bad++;
  }
  if (bad > 0) throw new UnusableDataError(`${what}: ${bad} values are NaN, infinite or out of range`);
}

/** What a node advertises of a dataset; the number of examples only where the owner allows it. */
export function schemaOf(dataset: Dataset, revealExamples: boolean): DatasetSchema {
  const fields = Object.entries(dataset.fields).map(([name, { dtype, shape, below }]) => {
    return { name, dtype, shape, below: below ?? null };
  });
  return { name: dataset.name, fields, examples: revealExamples ? countExamples(dataset) : null };
}

/**
 * Examples `start` to `end` of the fields a plan reads, as tensors.
 *
 * @throws UnusableDataError a field is missing or does not fit.
 */
export function tensorsOf(dataset: Dataset, fields: readonly DataField[], start: number, end: number): Record<string, Tensor> {
  const out: Record<string, Tensor> = {};
  for (const want of fields) {
    const field = dataset.fields[want.name];
    if (field === undefined || field.dtype !== want.dtype) {
      throw new UnusableDataError(`dataset ${dataset.name} has no field ${want.name} of ${want.dtype}`);
    }
    if (want.below !== null && (field.below === undefined || field.below > want.below)) {
      checkValues({ ...field, below: want.below }, `dataset ${dataset.name}, field ${want.name}`);
    }
    const size = itemSize(field.shape);
    const data = field.data.subarray(start * size, end * size);
    out[want.name] = { dtype: field.dtype, data, shape: [end - start, ...field.shape] };
  }
  return out;
}

/**
 * How many examples are in tensors that a plan is to read.
 *
 * @throws UnusableDataError a field is missing, or has another dtype, shape, number of examples or range than the plan says.
 */
export function countInputs(inputs: Readonly<Record<string, Tensor>>, fields: readonly DataField[], what: string): number {
  let examples: number | null = null;
  for (const want of fields) {
    const tensor = inputs[want.name];
    if (tensor === undefined) throw new UnusableDataError(`${what}: input ${want.name} is missing`);
    const { dtype, shape, data } = tensor;
    const [count = -1, ...rest] = shape;
    const fits = rest.length === want.shape.length && want.shape.every((size, i) => size === -1 || size === rest[i]);
    if (dtype !== want.dtype || !(data instanceof ARRAYS[dtype]) || !fits || count < 1) {
      throw new UnusableDataError(`${what}: input ${want.name} is ${dtype}[${shape}], the plan reads ${want.dtype}[N,${want.shape}]`);
    }
    if (data.length !== count * itemSize(rest)) {
      throw new UnusableDataError(`${what}: input ${want.name} holds ${data.length} numbers, its shape asks for ${count * itemSize(rest)}`);
    }
    if (examples !== null && count !== examples) {
      throw new UnusableDataError(`${what}: input ${want.name} has ${count} examples, the others ${examples}`);
    }
    checkValues({ dtype, shape: rest, data, ...(want.below === null ? {} : { below: want.below }) }, `${what}, input ${want.name}`);
    examples = count;
  }
  return examples ?? 0;
}
