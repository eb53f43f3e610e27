/** What every loader checks: names, dtypes, shapes, lengths and finite values, as the Python node does. */

import { UnusableDataError } from "../node/errors.js";
import type { TensorData } from "../node/platform.js";
import type { FieldData } from "../plans/data.js";

export type DType = FieldData["dtype"];

export const DTYPES = ["float32", "float64", "int32", "int64", "uint8", "bool"] as const satisfies readonly DType[];
export const MAX_FIELDS = 64;
export const MAX_AXES = 8;
/** Bytes of one dataset, as a file and as arrays: more does not fit beside a page. */
export const MAX_DATASET_BYTES = 1 << 30;
const MAX_LENGTH = 2 ** 28;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/;

/** Whether `text` may name a dataset or a field. */
export function isName(text: string): boolean {
  return NAME.test(text);
}

/**
 * Check the name of a dataset or a field.
 *
 * @throws UnusableDataError it is none.
 */
export function checkName(text: string, what: string): void {
  if (!isName(text)) {
    throw new UnusableDataError(`${what} ${shown(text, 128)}: expected letters, digits and . _ / - (128 at most)`);
  }
}

/**
 * Check what a header says of one array, before its values are read.
 *
 * @param shape of the whole array, the axis of examples first.
 * @throws UnusableDataError the name or shape is not one of a dataset.
 */
export function checkField(name: string, shape: readonly number[], where: string): void {
  checkName(name, `${where}: field name`);
  if (shape.length < 1 || shape.length > MAX_AXES + 1) {
    throw new UnusableDataError(
      `${where}: field ${shown(name)} has ${shape.length} axes, expected an axis of examples and ${MAX_AXES} more at most`,
    );
  }
  if (shape.some((length) => length > MAX_LENGTH)) {
    throw new UnusableDataError(`${where}: field ${shown(name)} has shape [${shape}], an axis holds ${MAX_LENGTH} at most`);
  }
  if (shape.slice(1).includes(0)) throw new UnusableDataError(`${where}: field ${shown(name)} has shape [${shape}], its examples are empty`);
}

/**
 * Check fields that were read: their number, lengths and values.
 *
 * @throws UnusableDataError names the field and the first bad place.
 */
export function checkFields(fields: Readonly<Record<string, FieldData>>, where: string): void {
  const entries = Object.entries(fields);
  if (entries.length < 1 || entries.length > MAX_FIELDS) {
    throw new UnusableDataError(`${where}: ${entries.length} fields, expected 1 to ${MAX_FIELDS}`);
  }
  const lengths = entries.map(([name, field]) => [name, field.data.length / itemSize(field.shape)] as const);
  if (new Set(lengths.map(([, length]) => length)).size > 1) {
    const told = lengths.map(([name, length]) => `${name} has ${length}`).join(", ");
    throw new UnusableDataError(`${where}: fields differ in their number of examples: ${told}`);
  }
  if (lengths[0]?.[1] === 0) throw new UnusableDataError(`${where}: no examples`);
  for (const [name, field] of entries) checkFinite(name, field, where);
}

/** Numbers of one example. */
export function itemSize(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** An empty array of a dtype, `length` long. */
export function arrayOf(dtype: DType, length: number): TensorData {
  switch (dtype) {
    case "float32":
      return new Float32Array(length);
    case "float64":
      return new Float64Array(length);
    case "int32":
      return new Int32Array(length);
    case "int64":
      return new BigInt64Array(length);
    case "uint8":
    case "bool":
      return new Uint8Array(length);
  }
}

/** Text of an owner's file in an error: quoted, short. */
export function shown(text: string, most = 40): string {
  return JSON.stringify(text.slice(0, most));
}

/** One NaN would silently spoil everybody's sum. */
function checkFinite(name: string, field: FieldData, where: string): void {
  if (!(field.data instanceof Float32Array || field.data instanceof Float64Array)) return;
  const at = field.data.findIndex((value) => !Number.isFinite(value));
  if (at < 0) return;
  const place: number[] = [];
  let rest = at;
  for (const size of [...field.shape].reverse()) {
    place.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  throw new UnusableDataError(`${where}: field ${shown(name)} is NaN or infinite at [${[rest, ...place].join(", ")}]; expected finite numbers`);
}
