/** From one level to the next (spec 08 §4): what a group's members sign, and what its delegates put in. */

import { type Bytes, toHex, utf8 } from "../protocol/bytes.js";
import { type Delegation, groupRoundIdOf } from "../protocol/cohorts.js";
import { sha256 } from "../protocol/crypto.js";
import { RoundError } from "../protocol/errors.js";
import { COMBINING_RING_BITS } from "../protocol/terms.js";
import { type Aggregate, summedWeight } from "./apply.js";
import type { Words } from "./packing.js";
import { RoundParameters, roundIdOf } from "./parameters.js";
import { type LocalUpdate, vectorLength } from "./quantise.js";

/** The smallest cohort, mask set and survivor set of delegates: peers were counted in their groups. */
export const MIN_DELEGATES = 3;

/** Where a cohort stands in a round of many. */
export interface Place {
  readonly level: number;
  readonly group: number;
}

/** What a delegate contributes where groups' sums are combined: int32 [d], weight and tail included. */
export class GroupSum {
  constructor(readonly sums: Int32Array<ArrayBuffer>) {}

  /**
   * Two's complement, uint32 [D]; zeros where another delegate puts the sum in.
   *
   * @throws RoundError a coordinate is beyond what `multiplicity` peers can sum up to.
   */
  ringElements(parameters: RoundParameters, counts: boolean): Words {
    const out = new Int32Array(parameters.paddedLength);
    const bound = parameters.largestContribution;
    if (this.sums.some((value) => value > bound || value < -bound)) {
      throw new RoundError(`the group's sum is out of range: beyond ${parameters.multiplicity} peers' largest values`);
    }
    if (counts) out.set(this.sums);
    return new Uint32Array(out.buffer);
  }

  toJSON(): string {
    return `GroupSum(length=${this.sums.length})`;
  }
}

/** What a member of a cohort puts in. */
export type Contribution = LocalUpdate | GroupSum;

/** Coordinates of what a contribution becomes: d. */
export function contributionLength(contribution: Contribution): number {
  return contribution instanceof GroupSum ? contribution.sums.length : vectorLength(contribution);
}

/**
 * What a cohort's aggregate counts as at the next level: its sums, the weight made good where its chunk is lost.
 *
 * Without that a group whose weight is lost would put in values without weight, and the step would be too long.
 */
export function groupSum(aggregate: Aggregate, parameters: RoundParameters, modelLength: number): GroupSum {
  const sums = aggregate.sums.slice();
  sums[modelLength] = summedWeight(aggregate, modelLength, parameters.largestContribution);
  return new GroupSum(sums);
}

/** Stands in RESULT where a last level has the model's digest; 64 hexadecimal digits. */
export async function groupSumDigest({ sums }: GroupSum): Promise<string> {
  const bytes: Bytes = new Uint8Array(sums.buffer, sums.byteOffset, sums.byteLength);
  return toHex(await sha256(utf8("p2psa/1/group-sum"), bytes));
}

/**
 * Parameters of a cohort of delegates over groups that ran with those of `below`.
 *
 * @throws TermsError sums of so many peers could overflow the ring.
 */
export function combiningParameters(below: RoundParameters, delegation: Delegation, roundId: string): RoundParameters {
  return new RoundParameters({
    ...below.setting,
    ...delegation,
    roundId,
    minSurvivors: MIN_DELEGATES,
    ringBits: COMBINING_RING_BITS,
  });
}

/** The id of a round's only cohort, or of the one at a place among many; 64 hexadecimal digits. */
export async function cohortRoundIdOf(run: string, round: number, attempt: number, place: Place | null): Promise<string> {
  if (place === null) return toHex(await roundIdOf(run, round, attempt));
  return toHex(await groupRoundIdOf(run, round, attempt, place.level, place.group));
}
