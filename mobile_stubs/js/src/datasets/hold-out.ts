/** Parts a dataset into training examples and those that are only evaluated on. */

import { UnusableDataError } from "../node/errors.js";
import type { TensorData } from "../node/platform.js";
import type { Dataset, FieldData } from "../plans/data.js";
import { itemSize } from "./fields.js";

/**
 * The dataset with `fraction` (0 <= fraction < 1) of its examples moved to the end and held out.
 *
 * Which ones depends on their number alone, so that the same file is always parted alike; both parts keep the file's
 * order. A file that is sorted by label does not lose a label to the hold-out, as it would by its last rows.
 *
 * @throws UnusableDataError the fraction is out of range, or one part would be empty.
 */
export function holdOut(dataset: Dataset, fraction: number, where = `dataset ${dataset.name}`): Dataset {
  if (!(fraction >= 0 && fraction < 1)) {
    throw new UnusableDataError(`${where}: hold-out is ${fraction}, expected at least 0 and less than 1`);
  }
  if (fraction === 0) return dataset;
  const [first] = Object.values(dataset.fields) as [FieldData];
  const count = first.data.length / itemSize(first.shape);
  const held = Math.max(1, Math.round(count * fraction));
  if (held >= count) {
    throw new UnusableDataError(`${where}: holding out ${fraction} of ${count} examples leaves none to train on`);
  }
  const shuffled = permutation(count);
  const order = Uint32Array.from([...shuffled.subarray(0, count - held).sort(), ...shuffled.subarray(count - held).sort()]);
  const fields = Object.entries(dataset.fields).map(([name, field]) => [name, { ...field, data: reordered(field, order) }]);
  return { ...dataset, fields: Object.fromEntries(fields) as Dataset["fields"], heldOut: held };
}

/** An order of 0 to count - 1 that is a function of `count`. It needs to be even, not secret. */
function permutation(count: number): Uint32Array {
  let state = count >>> 0;
  const draw = (): number => {
    // splitmix32 (Steele, Lea, Flood 2014, at 32 bits)
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  };
  const out = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor((draw() / 2 ** 32) * (i + 1));
    [out[i], out[j]] = [out[j] as number, out[i] as number];
  }
  return out;
}

function reordered(field: FieldData, order: Uint32Array): TensorData {
  const size = itemSize(field.shape);
  const data = field.data.slice() as Float32Array; // of any kind: `set` takes what `subarray` gave
  order.forEach((from, to) => data.set(field.data.subarray(from * size, (from + 1) * size) as Float32Array, to * size));
  return data;
}
