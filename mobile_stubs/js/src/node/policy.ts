/** An owner's policy: which runs a node takes part in, decided without asking anybody and always with a reason. */

import { short } from "../protocol/bytes.js";
import type { PeerId } from "../protocol/identity.js";
import { type DatasetSchema, explainMisfit, type PlanManifest } from "../protocol/manifest.js";
import type { RunTerms } from "../protocol/terms.js";

/** What an owner allows. Every default is on the careful side: nothing runs before `authors` names somebody. */
export interface Policy {
  /** Peer ids of authors whose runs may be accepted; "any" is everybody, and must be written out. */
  readonly authors: readonly PeerId[] | "any";
  /** Smallest cohort with which a round may start. */
  readonly minCohort: number;
  /** Fewest peers over whom a sum may be revealed: the owner's update hides among this many. */
  readonly minSurvivors: number;
  readonly maxParameters: number;
  /** Bytes of the plan's blobs and vectors in memory. */
  readonly maxModelBytes: number;
  readonly maxRounds: number;
  /** Local epochs per round. */
  readonly maxEpochs: number;
  /** All deadlines of one attempt at a round together. */
  readonly maxRoundSeconds: number;
  /** Advertise how many examples a dataset has. */
  readonly shareExampleCounts: boolean;
  /** Give models of runs this node takes part in to peers that ask. */
  readonly serveModels: boolean;
}

/** The defaults of every policy. */
export const CAREFUL: Policy = {
  authors: [],
  minCohort: 5,
  minSurvivors: 5,
  maxParameters: 50_000_000,
  maxModelBytes: 2 ** 30,
  maxRounds: 1000,
  maxEpochs: 50,
  maxRoundSeconds: 900,
  shareExampleCounts: false,
  serveModels: true,
};

/** What the policy says of one run: `rule` is the policy's field that decided, `dataset` what the run would read. */
export interface Verdict {
  readonly accepted: boolean;
  readonly rule: keyof Policy | "cohorts" | "datasets" | "owner";
  readonly reason: string;
  readonly dataset: string | null;
}

/** Decide on a run; pure. `author` is the verified signer of both the terms and the plan. */
export function decide(
  policy: Policy,
  terms: RunTerms,
  author: PeerId,
  manifest: PlanManifest,
  datasets: readonly DatasetSchema[],
): Verdict {
  const refused = (rule: Verdict["rule"], reason: string): Verdict => ({ accepted: false, rule, reason, dataset: null });
  if (policy.authors !== "any" && !policy.authors.includes(author)) {
    return refused("authors", `author ${author} is not allowed (policy allows ${policy.authors.length} authors)`);
  }
  if (terms.cohorts > 1) {
    return refused("cohorts", `rounds form up to ${terms.cohorts} cohorts; this node takes part in rounds of one`);
  }
  const vectors = 4 * (manifest.parameter_count + manifest.optimizer_count + manifest.buffer_count);
  const bytes = manifest.blobs.reduce((sum, blob) => sum + blob.size, vectors);
  const seconds = Object.values(terms.deadlines).reduce((sum, ms) => sum + ms, 0) / 1000;
  const bounds: readonly [keyof Policy, string, number, "least" | "most"][] = [
    ["minCohort", "a round may start with a cohort of", terms.min_cohort, "least"],
    ["minSurvivors", "sums are revealed over as few survivors as", terms.min_survivors, "least"],
    ["maxParameters", "the model's parameters number", manifest.parameter_count, "most"],
    ["maxModelBytes", "the bytes of the plan's blobs and vectors are", bytes, "most"],
    ["maxRounds", "the rounds of this run number", terms.rounds, "most"],
    ["maxEpochs", "the local epochs of a round number", terms.local.epochs, "most"],
    ["maxRoundSeconds", "the deadlines of a round add up to seconds:", seconds, "most"],
  ];
  for (const [rule, what, asked, kind] of bounds) {
    const limit = policy[rule] as number;
    if (kind === "least" ? asked < limit : asked > limit) return refused(rule, `${what} ${asked}; policy asks for at ${kind} ${limit}`);
  }
  const misfits: string[] = [];
  for (const dataset of datasets) {
    const misfit = explainMisfit(manifest, dataset);
    if (misfit === null) {
      const who = policy.authors === "any" ? "any author" : `author ${short(author)}`;
      return { accepted: true, rule: "authors", reason: `${who} is allowed and every limit holds`, dataset: dataset.name };
    }
    misfits.push(misfit);
  }
  return refused("datasets", misfits.join("; ").slice(0, 1000) || "this node has no dataset");
}
