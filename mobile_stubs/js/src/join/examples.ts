/** Single examples of the owner's own dataset, for trying a model on them. Nothing here leaves the page. */

import type { Tensor } from "../node/platform.js";
import type { Dataset, FieldData } from "../plans/data.js";
import type { DataField } from "../protocol/manifest.js";

/** Examples of a dataset. */
export function lengthOf(dataset: Dataset): number {
  const [first] = Object.values(dataset.fields);
  return first === undefined ? 0 : first.data.length / sizeOf(first);
}

/** Any example: one that was held out, where there are such. */
export function anyExample(dataset: Dataset): number {
  const all = lengthOf(dataset);
  const among = dataset.heldOut ?? 0;
  return among > 0 ? all - 1 - Math.floor(Math.random() * among) : Math.floor(Math.random() * all);
}

/** The numbers of one example of a field. */
export function exampleOf(dataset: Dataset, field: string, at: number): number[] {
  const found = dataset.fields[field];
  if (found === undefined) return [];
  const size = sizeOf(found);
  return [...found.data.subarray(at * size, (at + 1) * size)].map(Number);
}

/** The least and largest value of a field. */
export function rangeOf(dataset: Dataset, field: string): readonly [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of dataset.fields[field]?.data ?? []) {
    low = Math.min(low, Number(value));
    high = Math.max(high, Number(value));
  }
  return low <= high ? [low, high] : [0, 1];
}

/** One example as a tensor of a plan's input; open axes take the lengths that the dataset has. */
export function tensorOf(field: DataField, like: FieldData | undefined, values: readonly number[]): Tensor {
  const shape = [1, ...(like?.shape ?? field.shape)];
  const { dtype } = field;
  switch (dtype) {
    case "float32":
      return { dtype, shape, data: Float32Array.from(values) };
    case "float64":
      return { dtype, shape, data: Float64Array.from(values) };
    case "int32":
      return { dtype, shape, data: Int32Array.from(values) };
    case "int64":
      return { dtype, shape, data: BigInt64Array.from(values, (value) => BigInt(Math.trunc(value))) };
    case "uint8":
    case "bool":
      return { dtype, shape, data: Uint8Array.from(values) };
  }
}

function sizeOf(field: FieldData): number {
  return field.shape.reduce((product, size) => product * size, 1);
}
