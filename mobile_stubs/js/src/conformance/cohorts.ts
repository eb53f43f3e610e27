/** The operation `cohorts`: what spec 08 adds, one question at a time (spec/peer-under-test.md, "Many cohorts"). */

import { bitsOf } from "../protocol/bits.js";
import { toHex } from "../protocol/bytes.js";
import { groupRoundIdOf, nameDelegates } from "../protocol/cohorts.js";
import { type RunTerms, termsSchema } from "../protocol/terms.js";
import { type Announcement, checkAnnouncement, delegateParameters, rivalRoundIds } from "../node/announcement.js";
import { groupSum, groupSumDigest } from "../secagg/combining.js";
import { RoundParameters, type RoundSetting } from "../secagg/parameters.js";
import { signedSum } from "../secagg/quantise.js";
import { type Json, refuse } from "./json.js";
import { settingOf } from "./operations.js";

const ZEROS = "0".repeat(64);

const QUESTIONS: Readonly<Record<string, (given: Json) => Promise<Json>>> = {
  "round-id": async (g) => ({ round_id: toHex(await groupRoundIdOf(g.run_id, g.round, g.attempt, g.level, g.group)) }),
  "group-sum": sumOf,
  delegates: async (g) => {
    const groups = g.groups.map(({ group, round_id, sum_digest, signers, peers }: Json) => {
      return { group, roundId: round_id, sumDigest: sum_digest, signers, peers };
    });
    return nameDelegates(groups);
  },
  parameters: bindDelegates,
  announcement: judge,
};

/** The answer to what `ask` names. */
export async function answerQuestion(g: Json): Promise<Json> {
  return (QUESTIONS[g.ask] ?? refuse(`nothing is known about ${g.ask}`))(g);
}

/** By way of the parameters of a cohort that would have such a sum: of peers, or of delegates. */
async function sumOf(g: Json): Promise<Json> {
  const indexes = Array.from({ length: g.contributions }, (_, i) => i);
  const parameters = new RoundParameters({
    ...anySetting(indexes.map((i) => i.toString(16).padStart(64, "0"))),
    ringBits: g.ring_bits,
    valueBits: g.value_bits,
    vectorLength: g.sums.length,
    ...(g.multiplicity > 1 ? { sources: indexes, multiplicity: g.multiplicity } : {}),
  });
  const survivors = bitsOf(indexes);
  const contributions = parameters.contributions(survivors);
  const ring = Uint32Array.from(g.sums as number[]);
  const sums = signedSum(ring, parameters.ringBits, contributions * parameters.largestContribution);
  const lost = g.weight_lost ? [[g.weight_at, g.weight_at + 1] as const] : [];
  const total = groupSum({ sums, survivors, contributions, lost }, parameters, g.weight_at);
  return { sums: [...total.sums], digest: await groupSumDigest(total) };
}

async function bindDelegates(g: Json): Promise<Json> {
  const digests = { roundId: g.round_id, planDigest: g.plan_digest, modelDigest: g.model_digest };
  const parameters = new RoundParameters(settingOf(g.parameters, digests));
  const contributions = parameters.contributions(bitsOf(g.survivors));
  return {
    parameters: toHex(parameters.encode()),
    t0: toHex(await parameters.t0()),
    contributors: g.masked.filter((index: number) => parameters.contributes(index, bitsOf(g.masked))),
    contributions,
    range: contributions * parameters.largestContribution,
  };
}

/** As a membership does: the announcement, what was joined before, then the parameters of the cohort. */
async function judge(g: Json): Promise<Json> {
  const { run_id, cohort, ...rest } = g.announcement;
  const start: Announcement = { ...rest, run: run_id, members: cohort.map((peer: string) => ({ peer })) };
  const terms = termsOf(g.terms);
  const named = await checkAnnouncement(start, terms, g.peer);
  const rivals = await rivalRoundIds(start, terms);
  if (rivals.some((rival) => g.joined.includes(rival))) refuse("a cohort of that attempt was joined before");
  const held = g.held === null ? null : { ...g.held, parameters: new RoundParameters(anySetting(g.held.cohort)) };
  const parameters = start.combining === null ? new RoundParameters(anySetting(named)) : delegateParameters(start, held, g.peer, terms);
  return { accepted: parameters.size === named.length };
}

function anySetting(cohort: readonly string[]): RoundSetting {
  const ids = { runId: ZEROS, roundId: ZEROS, planDigest: ZEROS, modelDigest: ZEROS };
  return { ...ids, cohort, minSurvivors: 3, ringBits: 20, valueBits: 16, replicas: 1, vectorLength: 40, clip: 1 };
}

function termsOf(asked: Json): RunTerms {
  const local = { batch_size: 1, learning_rate: 1 };
  return termsSchema.read({ name: "vector", plan: ZEROS, nonce: ZEROS, min_survivors: 3, clip: 1, local, ...asked }, "terms");
}
