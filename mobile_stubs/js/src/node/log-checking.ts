/** Checking what a signaling server says was logged (spec 06 §3, §6): only a quorum makes a model a run's model. */

import { bitsOf } from "../protocol/bits.js";
import { fromHex, short } from "../protocol/bytes.js";
import { sha256 } from "../protocol/crypto.js";
import { LinkError } from "../protocol/errors.js";
import { verify } from "../protocol/identity.js";
import type { Combining, LogEntry } from "../protocol/signaling/messages.js";
import { type RunTerms, threshold } from "../protocol/terms.js";
import { RESULT_LABEL, resultPayload } from "../round/codec.js";
import { cohortRoundIdOf } from "../secagg/combining.js";

/** Delegates of one group in one round (spec 08 §3). */
const MOST_DELEGATES = 2;
/** Where the delegates whose result is a round's stand. */
const LAST = { level: 2, group: 0 };

/** The model a log entry must vouch for. */
export interface Claim {
  readonly run: string;
  readonly round: number;
  readonly digest: string;
  readonly terms: RunTerms;
}

/**
 * Check that a quorum of a cohort that the terms allow signed a model's digest.
 *
 * @throws LinkError another round, digest or cohort, or too few signers.
 * @throws SignatureError a signature that does not verify.
 */
export async function checkEntry(entry: LogEntry, { run, round, digest, terms }: Claim): Promise<void> {
  const what = `run ${short(run)} round ${round}`;
  if (entry.run !== run || entry.round !== round || entry.model_digest !== digest) {
    throw new LinkError(`${what}: signaling's log has no such round with model ${short(digest)}`);
  }
  const last = entry.combining === null ? null : LAST; // of many cohorts, the delegates' result is logged
  if (entry.round_id !== (await cohortRoundIdOf(run, round, entry.attempt, last))) {
    throw new LinkError(`${what}: the logged round id is another round's`);
  }
  checkCohort(entry, terms, what);
  const payload = resultPayload(entry.round_id, {
    modelDigest: fromHex(digest, "model digest"),
    tailDigest: await sha256(entry.metrics),
    survivors: bitsOf(entry.survivors),
  });
  const signers = new Set<number>();
  for (const { index, signature } of entry.signatures) {
    const peer = entry.cohort[index];
    if (peer === undefined) continue;
    await verify(peer, RESULT_LABEL, payload, signature);
    signers.add(index);
  }
  const least = threshold(entry.cohort.length);
  if (signers.size < least) throw new LinkError(`${what}: ${signers.size} peers signed, expected ${least}`);
  // of delegates, each speaks for a group that met the terms' number by itself
  const fewest = entry.combining === null ? Math.max(least, terms.min_survivors) : least;
  if (entry.survivors.some((index) => index >= entry.cohort.length)) {
    throw new LinkError(`${what}: names survivors beyond its cohort of ${entry.cohort.length} peers`);
  }
  if (new Set(entry.survivors).size < fewest) {
    throw new LinkError(`${what}: a sum over ${entry.survivors.length} peers, expected ${fewest} or more`);
  }
}

/** Signaling writes the cohort down, so it counts only as far as the author's terms allow it. */
function checkCohort(entry: LogEntry, terms: RunTerms, what: string): void {
  const { cohort } = entry;
  if (entry.round > terms.rounds || entry.attempt > terms.retries + 1) {
    throw new LinkError(`${what}: terms say ${terms.rounds} rounds of ${terms.retries + 1} attempts`);
  }
  if (entry.combining !== null) checkSources(entry.combining, cohort.length, terms, what);
  else if (cohort.length < terms.min_cohort || cohort.length > terms.cohort_size) {
    throw new LinkError(`${what}: a cohort of ${cohort.length}, terms say ${terms.min_cohort} to ${terms.cohort_size}`);
  }
  // one key at several indexes would count as several signers
  if (cohort.some((peer, index) => index > 0 && peer <= (cohort[index - 1] as string))) {
    throw new LinkError(`${what}: the logged cohort is not sorted, or names a peer twice`);
  }
  if (terms.members.length > 0 && cohort.some((peer) => !terms.members.includes(peer))) {
    throw new LinkError(`${what}: the logged cohort names peers outside the author's list`);
  }
}

/** Which groups there were is signaling's word; what the terms do not allow counts for nothing. */
function checkSources({ sources, groups }: Combining, delegates: number, terms: RunTerms, what: string): void {
  const named = new Set(groups.map(({ group }) => group));
  const each = [...named].map((group) => sources.filter((source) => source === group).length);
  const { cohorts, min_cohort, cohort_size, min_survivors } = terms;
  const fits =
    cohorts > 1 &&
    Math.max(...named) < cohorts &&
    sources.length === delegates &&
    named.size === groups.length &&
    sources.every((source) => named.has(source)) &&
    each.every((count) => count >= 1 && count <= MOST_DELEGATES) &&
    // nobody signs these counts, but people are shown them
    groups.every(({ members, survivors }) => {
      const fewest = Math.max(threshold(members), min_survivors);
      return members >= min_cohort && members <= cohort_size && survivors >= fewest && survivors <= members;
    });
  if (fits) return;
  throw new LinkError(
    `${what}: logged with ${delegates} delegates of groups ${[...named].join(", ")}, ` +
      `terms say ${cohorts} cohorts of ${min_cohort} to ${cohort_size} peers, each with one delegate or two, over ${min_survivors}`,
  );
}
