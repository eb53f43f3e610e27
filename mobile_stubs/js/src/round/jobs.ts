/** The heavy parts of a round as jobs: pure, and holding all they need. */

import { type Bits, bitsOf } from "../protocol/bits.js";
import type { Bytes } from "../protocol/bytes.js";
import { agree, agreementKey } from "../protocol/crypto.js";
import type { Aggregate } from "../secagg/apply.js";
import { type Contribution, GroupSum } from "../secagg/combining.js";
import { maskKey, selfKey } from "../secagg/keys.js";
import { type MaskedUpdate, maskUpdate, type SignedKey, unmaskSum } from "../secagg/masking.js";
import { unpack, type Words } from "../secagg/packing.js";
import type { ChunkPlan, RoundParameters } from "../secagg/parameters.js";
import { quantise, type Rounding, signedSum } from "../secagg/quantise.js";

/** What masking takes. `shared` are the secrets of the mask keys with every other peer of K. */
export interface MaskInput {
  readonly parameters: RoundParameters;
  readonly plan: ChunkPlan;
  readonly ownIndex: number;
  readonly selfMaskSeed: Bytes;
  readonly shared: ReadonlyMap<number, Bytes>;
  readonly t1: Bytes;
  readonly update: Contribution;
  readonly rounding: Rounding;
}

/** Quantise, mask, pack and hash one update, or mask, pack and hash the sum of a group. */
export async function maskJob(input: MaskInput): Promise<MaskedUpdate> {
  const { parameters, plan, ownIndex, t1, shared } = input;
  const pairwise = [...shared].map(async ([peer, secret]): Promise<SignedKey> => {
    return { key: await maskKey(t1, secret, ownIndex, peer), add: peer > ownIndex };
  });
  const own = { key: await selfKey(t1, input.selfMaskSeed, ownIndex), add: true };
  const quantised = await ringElements(input);
  const bounds = Array.from({ length: plan.count }, (_, chunk) => plan.bounds(chunk));
  return maskUpdate(quantised, [own, ...(await Promise.all(pairwise))], parameters.ringBits, bounds);
}

async function ringElements({ update, parameters, plan, ownIndex, rounding }: MaskInput): Promise<Words> {
  if (update instanceof GroupSum) {
    return update.ringElements(parameters, parameters.contributes(ownIndex, bitsOf(plan.peers)));
  }
  const { largestValue, paddedLength, setting } = parameters;
  return quantise(update, { clip: setting.clip, largestValue, paddedLength, rounding });
}

/** What summing one chunk takes: seeds of survivors, mask private keys of dropouts, survivors' mask public keys. */
export interface SumInput {
  readonly parameters: RoundParameters;
  readonly start: number;
  readonly contributions: readonly Bytes[];
  readonly t1: Bytes;
  readonly seeds: ReadonlyMap<number, Bytes>;
  readonly maskPrivates: ReadonlyMap<number, Bytes>;
  readonly maskPublics: ReadonlyMap<number, Bytes>;
}

/** Sum one chunk over the survivors and take the masks off; gives the packed chunk of the aggregate. */
export async function sumJob(input: SumInput): Promise<Bytes> {
  const keys: SignedKey[] = [];
  for (const [peer, seed] of input.seeds) keys.push({ key: await selfKey(input.t1, seed, peer), add: false });
  for (const [dropout, secret] of input.maskPrivates) {
    const own = await agreementKey(secret);
    for (const [survivor, maskPublic] of input.maskPublics) {
      const key = await maskKey(input.t1, await agree(own, maskPublic), dropout, survivor);
      // the survivor added this mask if the dropout's index is higher: take it away again, or add it back
      keys.push({ key, add: dropout < survivor });
    }
  }
  return unmaskSum(input.contributions, keys, input.parameters.ringBits, input.start);
}

/**
 * Put the chunk sums together and check their range; a lost chunk counts as zero.
 *
 * @throws RoundError a sum is out of range.
 */
export function unpackJob(
  parameters: RoundParameters,
  plan: ChunkPlan,
  sums: ReadonlyMap<number, Bytes>,
  survivors: Bits,
): Aggregate {
  const all = new Int32Array(plan.elements);
  const contributions = parameters.contributions(survivors);
  const bound = contributions * parameters.largestContribution;
  const lost: (readonly [number, number])[] = [];
  for (let chunk = 0; chunk < plan.count; chunk++) {
    const packed = sums.get(chunk);
    if (packed === undefined) lost.push(plan.bounds(chunk));
    else all.set(signedSum(unpack(packed, parameters.ringBits), parameters.ringBits, bound), plan.bounds(chunk)[0]);
  }
  return { sums: all.subarray(0, parameters.setting.vectorLength), survivors, contributions, lost };
}
