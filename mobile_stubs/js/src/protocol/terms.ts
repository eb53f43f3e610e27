/** The terms of a run (spec 06 §1): what the author asks of peers, signed, so that no server can change a word. */

import type { Bytes } from "./bytes.js";
import { TermsError } from "./errors.js";
import { boolean, decodeJson, hex64, integer, list, name, number, type Of, oneOf, optional, record } from "./schema.js";
import { FEDAVG, serverOptimizerSchema } from "./server-optimizer.js";

export const MAX_COHORT = 64;
/** Cohorts of one round: as many as one cohort of delegates can combine. */
export const MAX_COHORTS = 64;
/** The ring in which cohorts' sums are combined, whatever ring their peers' updates are summed in. */
export const COMBINING_RING_BITS = 32;
export const MAX_TERMS_BYTES = 64 << 10;
export const MAX_ROUNDS = 100_000;

const milliseconds = integer(100, 3_600_000);

const DEFAULT_DEADLINES = {
  link_ms: 10_000,
  train_ms: 60_000,
  advertise_ms: 5_000,
  share_ms: 5_000,
  commit_ms: 10_000,
  consistency_ms: 5_000,
  unmask_ms: 5_000,
  sum_ms: 10_000,
};

const deadlinesSchema = record({
  link_ms: optional(milliseconds, DEFAULT_DEADLINES.link_ms),
  train_ms: optional(milliseconds, DEFAULT_DEADLINES.train_ms),
  advertise_ms: optional(milliseconds, DEFAULT_DEADLINES.advertise_ms),
  share_ms: optional(milliseconds, DEFAULT_DEADLINES.share_ms),
  commit_ms: optional(milliseconds, DEFAULT_DEADLINES.commit_ms),
  consistency_ms: optional(milliseconds, DEFAULT_DEADLINES.consistency_ms),
  unmask_ms: optional(milliseconds, DEFAULT_DEADLINES.unmask_ms),
  sum_ms: optional(milliseconds, DEFAULT_DEADLINES.sum_ms),
});
/** How long a peer waits in each stage, in milliseconds, before it goes on without the missing. */
export type Deadlines = Of<typeof deadlinesSchema>;

const localSchema = record({
  epochs: optional(integer(1, 1000), 1),
  batch_size: integer(1, 1 << 20),
  learning_rate: number({ above: 0, most: 1e3 }),
  max_examples: optional(integer(1, 1 << 24), 2048),
  weighting: optional(oneOf("examples", "uniform"), "examples"),
});

export const termsSchema = record({
  format: optional(oneOf("peerplan-run/1"), "peerplan-run/1"),
  name,
  plan: hex64,
  nonce: hex64,
  rounds: integer(1, MAX_ROUNDS),
  cohort_size: integer(3, MAX_COHORT),
  min_cohort: integer(3, MAX_COHORT),
  min_survivors: integer(3, MAX_COHORT),
  cohorts: optional(integer(1, MAX_COHORTS), 1),
  ring_bits: optional(oneOf(16, 20, 24, 32), 20),
  value_bits: optional(integer(8, 28), 16),
  clip: number({ least: 1e-30, most: 1e6 }),
  replicas: optional(oneOf(1, 2), 1),
  retries: optional(integer(0, 100), 5),
  members: optional(list(hex64), []),
  evaluate: optional(boolean, true),
  server_optimizer: optional(serverOptimizerSchema, FEDAVG),
  local: localSchema,
  deadlines: optional(deadlinesSchema, DEFAULT_DEADLINES),
});
/** Terms of one run; the run id is the SHA-256 of their exact bytes. Fields are those of schemas/run-terms.schema.json. */
export type RunTerms = Of<typeof termsSchema>;

/** Votes and shares that decide: t = floor(2n/3) + 1, so that two quorums always share an honest peer. */
export function threshold(cohortSize: number): number {
  return Math.floor((2 * cohortSize) / 3) + 1;
}

/**
 * Parse terms and check that they agree with themselves.
 *
 * @throws EncodingError, LimitExceededError the bytes are no terms.
 * @throws TermsError sums could overflow the ring, or counts contradict each other.
 */
export function decodeTerms(data: Bytes): RunTerms {
  const terms = decodeJson(data, termsSchema, "run terms", MAX_TERMS_BYTES);
  const what = `run ${terms.name}`;
  if (terms.min_survivors > terms.min_cohort || terms.min_cohort > terms.cohort_size) {
    throw new TermsError(
      `${what}: expected min_survivors <= min_cohort <= cohort_size, ` +
        `got ${terms.min_survivors}, ${terms.min_cohort}, ${terms.cohort_size}`,
    );
  }
  const largest = terms.cohort_size * (2 ** (terms.value_bits - 1) - 1);
  if (largest >= 2 ** (terms.ring_bits - 1)) {
    throw new TermsError(
      `${what}: ${terms.cohort_size} peers of ${terms.value_bits}-bit values sum up to ${largest}, ` +
        `a ring of ${terms.ring_bits} bits holds less than ${2 ** (terms.ring_bits - 1)}`,
    );
  }
  const combined = terms.cohorts * largest;
  if (terms.cohorts > 1 && combined >= 2 ** (COMBINING_RING_BITS - 1)) {
    throw new TermsError(
      `${what}: ${terms.cohorts} cohorts of ${terms.cohort_size} peers of ${terms.value_bits}-bit values sum up to ` +
        `${combined}, ${COMBINING_RING_BITS} bits hold less than ${2 ** (COMBINING_RING_BITS - 1)}`,
    );
  }
  if (new Set(terms.members).size !== terms.members.length) throw new TermsError(`${what}: a member is listed twice`);
  if (terms.members.length > 0 && terms.members.length < terms.min_cohort) {
    throw new TermsError(`${what}: ${terms.members.length} members, min_cohort is ${terms.min_cohort}`);
  }
  return terms;
}
