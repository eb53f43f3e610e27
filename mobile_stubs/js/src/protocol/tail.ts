/** The masked vector's tail (spec 06 §5): weight and metrics that only ever show up as a sum over peers. */

import type { TailGroup } from "../secagg/quantise.js";
import type { Bytes } from "./bytes.js";
import { EncodingError } from "./errors.js";
import type { PlanManifest } from "./manifest.js";
import type { RunTerms } from "./terms.js";

/** Metrics over one part of a peer's data: means by name, over `examples` examples. */
export interface Part {
  readonly examples: number;
  readonly means: Readonly<Record<string, number>>;
}

/** What a round says about the cohort: weighted means over its survivors; null where nothing is held out. */
export interface RoundMetrics {
  readonly examples: number;
  readonly training: Readonly<Record<string, number>>;
  readonly heldOut: Readonly<Record<string, number>> | null;
}

/** Coordinates of the tail, weights included. */
export function tailLength(manifest: PlanManifest, terms: RunTerms): number {
  return (terms.evaluate ? 2 : 1) * (1 + manifest.metrics.length);
}

/** This peer's tail before quantising. */
export function composeTail(manifest: PlanManifest, terms: RunTerms, training: Part, heldOut: Part | null): TailGroup[] {
  const most = terms.local.max_examples;
  const weight = terms.local.weighting === "uniform" ? most : Math.min(training.examples, most);
  const groups = [{ fraction: weight / most, ratios: ratiosOf(manifest, training) }];
  if (terms.evaluate) {
    const part = heldOut ?? { examples: 0, means: {} };
    groups.push({ fraction: Math.min(part.examples, most) / most, ratios: ratiosOf(manifest, part) });
  }
  return groups;
}

/**
 * Metrics from the tail's summed bytes, as logged: little-endian i64 each.
 *
 * @throws EncodingError the length is not that of this plan's and run's tail.
 */
export function readTail(manifest: PlanManifest, terms: RunTerms, payload: Bytes): RoundMetrics {
  const expected = 8 * tailLength(manifest, terms);
  if (payload.length !== expected) {
    throw new EncodingError(`run ${terms.name}: metrics have ${payload.length} bytes, expected ${expected}`);
  }
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  const sums = Array.from({ length: expected / 8 }, (_, i) => Number(view.getBigInt64(8 * i, true)));
  const part = 1 + manifest.metrics.length;
  const largest = 2 ** (terms.value_bits - 1) - 1;
  const training = meansOf(manifest, sums.slice(0, part));
  return {
    examples: training === null ? 0 : ((sums[0] as number) / largest) * terms.local.max_examples,
    training: training ?? {},
    heldOut: terms.evaluate ? meansOf(manifest, sums.slice(part)) : null,
  };
}

function ratiosOf(manifest: PlanManifest, part: Part): number[] {
  return manifest.metrics.map((metric) => (part.means[metric.name] ?? 0) / metric.bound);
}

function meansOf(manifest: PlanManifest, sums: readonly number[]): Record<string, number> | null {
  const [weight = 0, ...rest] = sums;
  if (weight <= 0) return null;
  return Object.fromEntries(manifest.metrics.map((m, i) => [m.name, ((rest[i] as number) / weight) * m.bound]));
}
