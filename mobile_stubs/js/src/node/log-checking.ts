/** Checking what a signaling server says was logged (spec 06 §3, §6): only a quorum makes a model a run's model. */

import { bitsOf } from "../protocol/bits.js";
import { fromHex, short, toHex } from "../protocol/bytes.js";
import { sha256 } from "../protocol/crypto.js";
import { LinkError } from "../protocol/errors.js";
import { verify } from "../protocol/identity.js";
import type { LogEntry } from "../protocol/signaling/messages.js";
import { type RunTerms, threshold } from "../protocol/terms.js";
import { RESULT_LABEL, resultPayload } from "../round/codec.js";
import { roundIdOf } from "../secagg/parameters.js";

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
  if (entry.round_id !== toHex(await roundIdOf(run, round, entry.attempt))) {
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
  const fewest = Math.max(least, terms.min_survivors);
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
  if (cohort.length < terms.min_cohort || cohort.length > terms.cohort_size) {
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
