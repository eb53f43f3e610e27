/** Datasets that arrive in batches of rows: read once into typed arrays, bounded before memory is taken. */

import { UnusableDataError } from "../node/errors.js";
import type { TensorData } from "../node/platform.js";
import { type Dataset, type FieldData, itemSize, newArray } from "./data.js";

const USUAL_MAX_BYTES = 2 ** 30;

/** Some rows: for each field a flat array of whole examples, equally many in each. */
export type Batch = Readonly<Record<string, TensorData>>;

/** A dataset of one owner that gives its examples in batches, for instance from an async generator. */
export interface DatasetSource {
  readonly name: string;
  readonly fields: Readonly<Record<string, Omit<FieldData, "data">>>;
  /** Called once; may be an async generator function. It is closed early where a batch is refused. */
  readonly batches: () => AsyncIterable<Batch> | Iterable<Batch>;
  readonly heldOut?: number;
  /** The most bytes to hold in memory; 1 GiB by default. */
  readonly maxBytes?: number;
}

/**
 * A dataset in memory: a `Dataset` as it is, a source read to its end.
 *
 * @throws UnusableDataError a batch does not fit the fields, or there are more bytes than `maxBytes`.
 */
export async function readDataset(given: Dataset | DatasetSource, signal?: AbortSignal): Promise<Dataset> {
  if (!("batches" in given)) return given;
  const { name, fields, heldOut, maxBytes = USUAL_MAX_BYTES } = given;
  const parts = new Map<string, TensorData[]>(Object.keys(fields).map((field) => [field, []]));
  let bytes = 0;
  let number = 0;
  for await (const batch of given.batches()) {
    signal?.throwIfAborted();
    number++;
    checkBatch(given, batch, `dataset ${name}, batch ${number}`);
    for (const [field, list] of parts) {
      const data = batch[field] as TensorData;
      bytes += data.byteLength;
      if (bytes > maxBytes) throw new UnusableDataError(`dataset ${name}: more than ${maxBytes} bytes, its maxBytes`);
      list.push(data.slice()); // a generator may fill one array again and again
    }
  }
  const whole = Object.entries(fields).map(([field, rest]) => {
    return [field, { ...rest, data: joined(rest.dtype, parts.get(field) ?? []) }] as const;
  });
  return { name, fields: Object.fromEntries(whole), ...(heldOut === undefined ? {} : { heldOut }) };
}

function checkBatch({ fields }: DatasetSource, batch: Batch, what: string): void {
  const surplus = Object.keys(batch).find((field) => !Object.hasOwn(fields, field));
  if (surplus !== undefined) throw new UnusableDataError(`${what}: field ${surplus.slice(0, 80)} is not declared`);
  let examples: number | null = null;
  for (const [field, { dtype, shape }] of Object.entries(fields)) {
    const data = batch[field];
    if (data === undefined) throw new UnusableDataError(`${what}: field ${field} is missing`);
    if (Object.getPrototypeOf(data) !== Object.getPrototypeOf(newArray(dtype, 0))) {
      throw new UnusableDataError(`${what}, field ${field}: ${dtype} takes another array`);
    }
    const count = data.length / itemSize(shape);
    if (!Number.isInteger(count)) {
      throw new UnusableDataError(`${what}, field ${field}: ${data.length} numbers are no whole examples of [${shape}]`);
    }
    if (examples !== null && count !== examples) {
      throw new UnusableDataError(`${what}: field ${field} has ${count} examples, the others ${examples}`);
    }
    examples = count;
  }
}

function joined(dtype: FieldData["dtype"], parts: readonly TensorData[]): TensorData {
  const whole = newArray(
    dtype,
    parts.reduce((sum, part) => sum + part.length, 0),
  );
  let at = 0;
  for (const part of parts) {
    (whole as Float32Array).set(part as Float32Array, at);
    at += part.length;
  }
  return whole;
}
