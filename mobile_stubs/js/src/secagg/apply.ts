/** Applying an aggregate so that every language gets the same bits (spec 07 §9). */

import { type Bytes, toHex } from "../protocol/bytes.js";
import { type Bits, count } from "../protocol/bits.js";
import { sha256 } from "../protocol/crypto.js";
import { RoundError } from "../protocol/errors.js";
import { FEDAVG, initialMoments, type ServerOptimizer } from "../protocol/server-optimizer.js";
import { serverStep } from "./server-step.js";

/** A flat model: parameters, buffers, then the moments of the run's server optimizer. */
export type Model = Float32Array<ArrayBuffer>;

/** The revealed sum: `sums` holds the model's coordinates, then the tail; lost chunks stand at zero in it. */
export interface Aggregate {
  readonly sums: Int32Array<ArrayBuffer>;
  readonly survivors: Bits;
  /** How many updates, or groups' sums, it holds. */
  readonly contributions: number;
  /** First element and end of each lost chunk. */
  readonly lost: readonly (readonly [number, number])[];
}

/** What an aggregate is applied with; `clip` is the round's, `largestValue` the largest of one contribution. */
export interface Applying {
  readonly clip: number;
  readonly largestValue: number;
  /** The run's; by default fedavg. */
  readonly optimizer?: ServerOptimizer;
  /** P; by default all that is no moment. */
  readonly parameterCount?: number;
}

/**
 * The next model: the checkpoint and the weighted mean update, in binary64, each coordinate rounded once.
 *
 * @throws RoundError the summed weight is not positive.
 */
export function applyAggregate(model: Model, aggregate: Aggregate, applying: Applying): Model {
  const { clip, largestValue, optimizer = FEDAVG } = applying;
  const kept = initialMoments(optimizer).length;
  const parameters = applying.parameterCount ?? model.length / (1 + kept);
  const length = model.length - kept * parameters;
  const weight = summedWeight(aggregate, length, largestValue);
  if (weight <= 0) {
    throw new RoundError(`the summed weight of ${count(aggregate.survivors)} survivors is ${weight}, expected above 0`);
  }
  const out = model.slice();
  const moments = Array.from({ length: kept }, (_, i) =>
    out.subarray(length + i * parameters, length + (i + 1) * parameters),
  );
  const change = (i: number) => ((aggregate.sums[i] as number) * clip) / weight;
  const step = serverStep(optimizer, change, moments);
  for (let i = 0; i < parameters; i++) out[i] = (model[i] as number) + step(i);
  for (let i = parameters; i < length; i++) out[i] = (model[i] as number) + change(i);
  return out;
}

/** W: the summed weight, or the largest possible where its own chunk is lost: the step is then too short, never too long. */
export function summedWeight(aggregate: Aggregate, modelLength: number, largestValue: number): number {
  const isLost = aggregate.lost.some(([start, end]) => start <= modelLength && modelLength < end);
  return isLost ? aggregate.contributions * largestValue : (aggregate.sums[modelLength] ?? 0);
}

/** The tail's sums as reported and signed: little-endian i64 each. */
export function tailBytes(aggregate: Aggregate, modelLength: number): Bytes {
  const tail = aggregate.sums.subarray(modelLength);
  const out = new DataView(new ArrayBuffer(8 * tail.length));
  tail.forEach((value, i) => out.setBigInt64(8 * i, BigInt(value), true));
  return new Uint8Array(out.buffer);
}

/** SHA-256 of a model's little-endian binary32 bytes, in hexadecimal. */
export async function modelDigest(model: Model): Promise<string> {
  return toHex(await sha256(modelBytes(model)));
}

/** A model's bytes on the wire; a view, not a copy. */
export function modelBytes(model: Model): Bytes {
  return new Uint8Array(model.buffer, model.byteOffset, model.byteLength);
}

/** A model of its bytes on the wire. */
export function modelFrom(data: Bytes): Model {
  return new Float32Array(data.slice().buffer);
}
