/** From real numbers into the ring and back (spec 07 §9, §10), in binary64 and in the order of the spec. */

import { RoundError } from "../protocol/errors.js";
import type { Words } from "./packing.js";
import type { RingBits } from "./parameters.js";

/**
 * One group of the tail: `fraction` is the weight divided by `max_examples`, `ratios` each metric's mean divided by
 * its bound, in the manifest's order.
 */
export interface TailGroup {
  readonly fraction: number;
  readonly ratios: readonly number[];
}

/** What a peer contributes: local minus checkpoint (float32 [P + B]), and the groups of its tail. */
export interface LocalUpdate {
  readonly values: Float32Array;
  readonly groups: readonly TailGroup[];
}

/** Random integers below 2^24, one per coordinate. */
export type Rounding = (count: number) => Promise<Words>;

/** Coordinates of an update and its tail. */
export function vectorLength(update: LocalUpdate): number {
  return update.groups.reduce((sum, group) => sum + 1 + group.ratios.length, update.values.length);
}

/**
 * Quantise an update and its tail with stochastic rounding; weights are rounded to nearest.
 *
 * @param paddedLength D; the elements after the tail are zero.
 * @returns two's complement, uint32 [D].
 * @throws RoundError a coordinate or metric is NaN or infinite, or a weight is outside its range.
 */
export async function quantise(
  update: LocalUpdate,
  options: { clip: number; largestValue: number; paddedLength: number; rounding: Rounding },
): Promise<Words> {
  const { clip, largestValue, paddedLength, rounding } = options;
  const [training] = update.groups;
  if (training === undefined || !(training.fraction > 0)) {
    throw new RoundError("a peer without examples takes no part");
  }
  const out = new Int32Array(paddedLength);
  const randoms = await rounding(vectorLength(update));
  const scale = largestValue / clip;
  for (let i = 0; i < update.values.length; i++) {
    const value = (update.values[i] as number) * training.fraction;
    if (!Number.isFinite(value)) throw new RoundError("the update holds NaN or infinity: training diverged");
    out[i] = level(clamp(value, clip), scale, (randoms[i] as number) / 2 ** 24, largestValue);
  }
  let at = update.values.length;
  for (const group of update.groups) at = quantiseGroup(group, largestValue, randoms, out, at);
  return new Uint32Array(out.buffer);
}

function quantiseGroup(group: TailGroup, largest: number, randoms: Words, out: Int32Array, start: number): number {
  if (!(group.fraction >= 0 && group.fraction <= 1)) {
    throw new RoundError(`a weight is a fraction of max_examples in [0, 1], got ${group.fraction}`);
  }
  out[start] = level(group.fraction, largest, 0.5, largest);
  let at = start + 1;
  for (const ratio of group.ratios) {
    if (!Number.isFinite(ratio)) throw new RoundError("a metric is NaN or infinite: training diverged");
    out[at] = level(clamp(ratio, 1) * group.fraction, largest, (randoms[at] as number) / 2 ** 24, largest);
    at++;
  }
  return at;
}

function clamp(value: number, bound: number): number {
  return Math.max(-bound, Math.min(bound, value));
}

function level(value: number, scale: number, uniform: number, limit: number): number {
  return Math.max(-limit, Math.min(limit, Math.floor(value * scale + uniform)));
}

/**
 * Ring elements as signed integers, checked against what honest peers can sum up to.
 *
 * @throws RoundError a coordinate beyond survivors times L: somebody put in more than the protocol allows.
 */
export function signedSum(ring: Words, ringBits: RingBits, bound: number): Int32Array<ArrayBuffer> {
  const shift = 32 - ringBits;
  const out = new Int32Array(ring.length);
  for (let i = 0; i < ring.length; i++) {
    const value = ((ring[i] as number) << shift) >> shift;
    if (value > bound || value < -bound) {
      throw new RoundError(`the sum is out of range: coordinate ${i} is ${value}, at most ${bound} is possible`);
    }
    out[i] = value;
  }
  return out;
}
