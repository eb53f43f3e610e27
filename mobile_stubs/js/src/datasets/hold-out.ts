/** Parts a dataset into training examples and those that are only evaluated on. */

import { UnusableDataError } from "../node/errors.js";
import type { TensorData } from "../node/platform.js";
import type { Dataset, FieldData } from "../plans/data.js";
import { itemSize } from "./fields.js";
import { shuffledExamples } from "./held-examples.js";

/**
 * The dataset with `fraction` (0 <= fraction < 1) of its examples moved to the end and held out.
 *
 * Which ones depends on their number alone (spec 05 §6), so that the same file is always parted alike, by the Python
 * node too; both parts keep the file's order. A file that is sorted by label does not lose a label to the hold-out, as
 * it would by its last rows.
 *
 * @throws UnusableDataError the fraction is out of range, or one part would be empty.
 */
export function holdOut(dataset: Dataset, fraction: number, where = `dataset ${dataset.name}`): Dataset {
  const [first] = Object.values(dataset.fields) as [FieldData];
  const parts = parted(first.data.length / itemSize(first.shape), fraction, where);
  if (parts.held.length === 0) return dataset;
  const order = Uint32Array.from([...parts.training, ...parts.held]);
  const fields = Object.entries(dataset.fields).map(([name, field]) => [name, { ...field, data: reordered(field, order) }]);
  return { ...dataset, fields: Object.fromEntries(fields) as Dataset["fields"], heldOut: parts.held.length };
}

/**
 * The examples of either part, ascending.
 *
 * @throws UnusableDataError as `holdOut` does; `where` is what the message calls the data.
 */
export function parted(count: number, fraction: number, where: string): { training: Uint32Array; held: Uint32Array } {
  if (!(fraction >= 0 && fraction < 1)) {
    throw new UnusableDataError(`${where}: hold-out is ${fraction}, expected at least 0 and less than 1`);
  }
  if (fraction === 0) return { training: Uint32Array.from({ length: count }, (_, i) => i), held: new Uint32Array(0) };
  const held = Math.max(1, toEven(count * fraction));
  if (held >= count) {
    throw new UnusableDataError(`${where}: holding out ${fraction} of ${count} examples leaves none to train on`);
  }
  const shuffled = shuffledExamples(count);
  return { training: shuffled.subarray(0, count - held).sort(), held: shuffled.subarray(count - held).sort() };
}

/** The nearest whole number, the even one of two. */
function toEven(value: number): number {
  const below = Math.floor(value);
  return value - below === 0.5 ? below + (below % 2) : Math.round(value);
}

function reordered(field: FieldData, order: Uint32Array): TensorData {
  const size = itemSize(field.shape);
  const data = field.data.slice() as Float32Array; // of any kind: `set` takes what `subarray` gave
  order.forEach((from, to) => data.set(field.data.subarray(from * size, (from + 1) * size) as Float32Array, to * size));
  return data;
}
