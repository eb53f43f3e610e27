/** What makes a quorum certificate valid (spec 07 §7). */

import { type Bits, count, indexesOf, isWithin } from "../protocol/bits.js";
import { type Bytes, equalBytes } from "../protocol/bytes.js";
import { MessageError } from "../protocol/errors.js";
import type { Certificate, Vote } from "./messages.js";

/** What a certificate is held against. */
export interface Electorate {
  readonly sender: number;
  readonly t2: Bytes;
  readonly maskSet: Bits;
  readonly threshold: number;
  readonly quorum: number;
  readonly verifyVote: (voter: number, vote: Vote, signature: Bytes) => Promise<void>;
}

/**
 * Check a certificate: its T2, its survivor set, enough voters of K, and every signature.
 *
 * @throws MessageError, SignatureError the first of these that does not hold.
 */
export async function checkCertificate(certificate: Certificate, by: Electorate): Promise<void> {
  const { t2, survivors, root, voters } = certificate;
  const what = `peer ${by.sender} sent a certificate`;
  if (!equalBytes(t2, by.t2) || !isWithin(survivors, by.maskSet)) throw new MessageError(`${what} for another mask set`);
  if (count(survivors) < by.quorum) {
    throw new MessageError(`${what} for ${count(survivors)} survivors, expected at least ${by.quorum}`);
  }
  if (count(voters) < by.threshold || !isWithin(voters, by.maskSet)) {
    throw new MessageError(`${what} of ${count(voters)} votes, expected ${by.threshold} of the mask set`);
  }
  const vote: Vote = { type: "vote", t2, survivors, root };
  const peers = indexesOf(voters);
  await Promise.all(peers.map((voter, i) => by.verifyVote(voter, vote, certificate.signatures[i] as Bytes)));
}
