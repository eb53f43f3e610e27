/**
 * An owner's policy: which runs a node takes part in, decided without asking anybody and always with a reason.
 *
 * Rules are tried in a fixed order; the first that objects decides. The defaults are those of the Python node.
 */

import { isHex64, quote, short } from "../protocol/bytes.js";
import type { PeerId } from "../protocol/identity.js";
import { type DatasetSchema, explainMisfit, type PlanManifest, vectorSize } from "../protocol/manifest.js";
import { initialMoments } from "../protocol/server-optimizer.js";
import type { RunTerms } from "../protocol/terms.js";
import { PolicyError } from "./errors.js";
import { matchesPattern } from "./pattern.js";

/** A function that a plan may bring. */
export type FunctionKind = "train" | "evaluate" | "predict" | "query";

/** What an owner allows. Every default is on the careful side: nothing runs before `authors` names somebody. */
export interface Policy {
  /** Peer ids of authors whose runs may be accepted; "any" is everybody, and must be written out. */
  readonly authors: readonly PeerId[] | "any";
  /** A plan that brings any other function is declined. */
  readonly functions: readonly FunctionKind[];
  /** Smallest cohort with which a round may start. */
  readonly minCohort: number;
  /** Fewest peers over whom a sum may be revealed: the owner's update hides among this many. */
  readonly minSurvivors: number;
  /** Peer ids the owner trusts not to be one party under many names; the node's own id does not count. */
  readonly knownPeers: readonly PeerId[];
  /** At least so many of a cohort, beside this node, must be known peers: against cohorts of made-up peers. */
  readonly minKnownPeers: number;
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
  /** Dataset names or patterns by plan-name pattern; where any is given, a plan reads only what it lists. */
  readonly datasets: Readonly<Record<string, readonly string[]>>;
}

/** The defaults of every policy. */
export const CAREFUL: Policy = {
  authors: [],
  functions: ["train", "evaluate", "predict"],
  minCohort: 5,
  minSurvivors: 5,
  knownPeers: [],
  minKnownPeers: 0,
  maxParameters: 50_000_000,
  maxModelBytes: 2 ** 30,
  maxRounds: 1000,
  maxEpochs: 50,
  maxRoundSeconds: 900,
  shareExampleCounts: false,
  serveModels: true,
  datasets: {},
};

/** What the policy says of one run: `rule` is the policy's field that decided, `dataset` what the run would read. */
export interface Verdict {
  readonly accepted: boolean;
  readonly rule: keyof Policy | "owner";
  readonly reason: string;
  readonly dataset: string | null;
}

const RANGES: readonly [keyof Policy, number, number][] = [
  ["minCohort", 3, 64],
  ["minSurvivors", 3, 64],
  ["minKnownPeers", 0, 63],
  ["maxParameters", 1, Infinity],
  ["maxModelBytes", 1, Infinity],
  ["maxRounds", 1, Infinity],
  ["maxEpochs", 1, Infinity],
  ["maxRoundSeconds", 1, Infinity],
];
const REASON_LENGTH = 4000;

/**
 * The defaults with what an owner changed.
 *
 * @throws PolicyError an unknown rule, a value out of range, or rules that contradict each other.
 */
export function policyOf(changes: Partial<Policy>): Policy {
  const unknown = Object.keys(changes).find((key) => !Object.hasOwn(CAREFUL, key));
  if (unknown !== undefined) {
    throw new PolicyError(`policy: unknown rule ${quote(unknown)}, known are ${Object.keys(CAREFUL).join(", ")}`);
  }
  const policy = { ...CAREFUL, ...changes };
  for (const [rule, least, most] of RANGES) {
    const value = policy[rule] as number;
    if (!Number.isFinite(value) || value < least || value > most) {
      throw new PolicyError(`policy: ${rule} is ${value}, expected ${least} to ${most}`);
    }
  }
  const listed = policy.authors === "any" ? [] : policy.authors;
  const stranger = [...listed, ...policy.knownPeers].find((peer) => !isHex64(peer));
  if (stranger !== undefined) {
    throw new PolicyError(`policy: ${quote(stranger)} is no peer id (64 lower-case hexadecimal digits) and not "any"`);
  }
  const known = new Set(policy.knownPeers).size;
  if (policy.minKnownPeers > known) {
    throw new PolicyError(`policy: minKnownPeers asks for ${policy.minKnownPeers}, knownPeers lists ${known}`);
  }
  return policy;
}

/** Decide on a run; pure. `author` is the verified signer of both the terms and the plan. */
export function decide(
  policy: Policy,
  terms: RunTerms,
  author: PeerId,
  manifest: PlanManifest,
  datasets: readonly DatasetSchema[],
): Verdict {
  const question = { policy, terms, author, manifest };
  for (const [rule, judge] of RULES) {
    const reason = judge(question);
    if (reason !== null) return { accepted: false, rule, reason, dataset: null };
  }
  return chooseDataset(question, datasets);
}

/** What speaks against taking part with these peers, under the rule `minKnownPeers`; null where nothing. */
export function judgeCohort(policy: Policy, cohort: readonly PeerId[], own: PeerId): string | null {
  const others = new Set(cohort.filter((peer) => peer !== own));
  const known = new Set(policy.knownPeers.filter((peer) => others.has(peer))).size;
  if (known >= policy.minKnownPeers) return null;
  return `of ${others.size} other peers in the cohort ${known} are known; policy asks for ${policy.minKnownPeers} or more`;
}

interface Question {
  readonly policy: Policy;
  readonly terms: RunTerms;
  readonly author: PeerId;
  readonly manifest: PlanManifest;
}
type Judge = (question: Question) => string | null;

const RULES: readonly (readonly [keyof Policy, Judge])[] = [
  ["authors", judgeAuthor],
  ["functions", judgeFunctions],
  atLeast("minCohort", "a round may start with a cohort of", ({ terms }) => terms.min_cohort),
  atLeast("minSurvivors", "sums are revealed over as few survivors as", ({ terms }) => terms.min_survivors),
  ["minKnownPeers", judgeMembers],
  atMost("maxParameters", "the model's parameters number", ({ manifest }) => manifest.parameter_count),
  atMost("maxModelBytes", "the bytes of the plan's blobs and vectors are", modelBytes),
  atMost("maxRounds", "the rounds of this run number", ({ terms }) => terms.rounds),
  atMost("maxEpochs", "the local epochs of a round number", ({ terms }) => terms.local.epochs),
  atMost("maxRoundSeconds", "the deadlines of a round add up to seconds:", ({ terms }) => roundSeconds(terms)),
];

function atLeast(rule: keyof Policy, what: string, ask: (question: Question) => number): readonly [keyof Policy, Judge] {
  return [rule, (question) => bounded(question, rule, what, ask(question), "least")];
}

function atMost(rule: keyof Policy, what: string, ask: (question: Question) => number): readonly [keyof Policy, Judge] {
  return [rule, (question) => bounded(question, rule, what, ask(question), "most")];
}

function bounded({ policy }: Question, rule: keyof Policy, what: string, asked: number, kind: "least" | "most") {
  const limit = policy[rule] as number;
  if (kind === "least" ? asked >= limit : asked <= limit) return null;
  return `${what} ${asked}; policy asks for at ${kind} ${limit}`;
}

function judgeAuthor({ policy, author }: Question): string | null {
  if (policy.authors === "any" || policy.authors.includes(author)) return null;
  return `author ${author} is not allowed (policy allows ${policy.authors.length} authors)`;
}

function judgeFunctions({ policy, manifest }: Question): string | null {
  const extra = Object.keys(manifest.functions).filter((kind) => !policy.functions.includes(kind as FunctionKind));
  if (extra.length === 0) return null;
  return `plan ${manifest.name} brings ${extra.sort().join(", ")}; policy allows ${policy.functions.join(", ") || "none"}`;
}

/** A run whose author leaves no room for enough known peers need not be tried. */
function judgeMembers({ policy, terms }: Question): string | null {
  const known = [...new Set(policy.knownPeers)];
  const eligible = terms.members.length === 0 ? known : known.filter((peer) => terms.members.includes(peer));
  const room = Math.min(eligible.length, terms.cohort_size - 1);
  if (room >= policy.minKnownPeers) return null;
  return `known peers in a cohort of this run number ${room} at most; policy asks for ${policy.minKnownPeers}`;
}

function modelBytes({ manifest, terms }: Question): number {
  const moments = initialMoments(terms.server_optimizer).length * vectorSize(manifest, "theta");
  const vectors = 4 * (manifest.parameter_count + manifest.optimizer_count + manifest.buffer_count + moments);
  return manifest.blobs.reduce((sum, blob) => sum + blob.size, vectors);
}

function roundSeconds(terms: RunTerms): number {
  return Object.values(terms.deadlines).reduce((sum, ms) => sum + ms, 0) / 1000;
}

/** Whether `datasets` lets the plan of that name read the dataset of that name. */
function allowsDataset(policy: Policy, plan: string, dataset: string): boolean {
  const rules = Object.entries(policy.datasets);
  if (rules.length === 0) return true;
  return rules.some(([pattern, names]) => {
    return matchesPattern(plan, pattern) && names.some((name) => matchesPattern(dataset, name));
  });
}

function chooseDataset({ policy, author, manifest }: Question, datasets: readonly DatasetSchema[]): Verdict {
  const refused = (reason: string): Verdict => ({ accepted: false, rule: "datasets", reason, dataset: null });
  const allowed = datasets.filter((dataset) => allowsDataset(policy, manifest.name, dataset.name));
  if (allowed.length === 0) {
    const have = datasets.map((dataset) => dataset.name).join(", ") || "none";
    return refused(`plan ${manifest.name} may read no dataset of this node (it has: ${have})`.slice(0, REASON_LENGTH));
  }
  const misfits: string[] = [];
  for (const dataset of allowed) {
    const misfit = explainMisfit(manifest, dataset);
    if (misfit === null) {
      const who = policy.authors === "any" ? "any author" : `author ${short(author)}`;
      const reason = `${who} is allowed, every limit holds, and dataset ${dataset.name} fits plan ${manifest.name}`;
      return { accepted: true, rule: "authors", reason, dataset: dataset.name };
    }
    misfits.push(misfit);
  }
  return refused(misfits.join("; ").slice(0, REASON_LENGTH));
}
