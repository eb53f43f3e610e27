/** How the cohorts of one round are told apart, and who speaks for one at the next level (spec 08 §2, §3). */

import { type Bytes, parseHex64, short, toHex, utf8 } from "./bytes.js";
import { Writer } from "./binary.js";
import { sha256 } from "./crypto.js";
import { TermsError } from "./errors.js";
import type { PeerId } from "./identity.js";
import { MAX_COHORT } from "./terms.js";

/** Up to so many groups send two delegates each: fewer than four delegates could not lose a single one. */
const FEW_GROUPS = 3;
const MAX_LEVEL = 8;

/** A cohort whose sum is known, and who signed it, so holds it; `peers` is the most whose updates it may hold. */
export interface FinishedGroup {
  readonly group: number;
  readonly roundId: string;
  readonly sumDigest: string;
  readonly signers: readonly PeerId[];
  readonly peers: number;
}

/** Who speaks for which group: delegates, and for each the number of its group. */
export interface Spoken {
  readonly cohort: readonly PeerId[];
  readonly sources: readonly number[];
}

/** A cohort of the next level; `multiplicity` is the most peers summed in one of its groups. */
export interface Delegation extends Spoken {
  readonly multiplicity: number;
}

/**
 * The id of one of many cohorts, 32 bytes; levels count from 1, groups from 0.
 *
 * @throws TermsError a level or group outside its range.
 */
export async function groupRoundIdOf(run: string, round: number, attempt: number, level: number, group: number): Promise<Bytes> {
  if (!(level >= 1 && level <= MAX_LEVEL && group >= 0 && group < 1 << 16)) {
    throw new TermsError(`round: level 1 to ${MAX_LEVEL} and group 0 to 65535, got level ${level} group ${group}`);
  }
  const place = new Writer().uint(round, 4).uint(attempt, 4).uint(level, 1).uint(group, 2).bytes();
  return sha256(utf8("p2psa/1/group"), parseHex64(run, "run id"), place);
}

/**
 * The cohort of delegates over finished groups: of each those signers that its own result draws first.
 *
 * @throws TermsError too few or too many groups, one without the signers it needs, or a peer of two groups.
 */
export async function nameDelegates(groups: readonly FinishedGroup[]): Promise<Delegation> {
  if (groups.length < 2 || groups.length > MAX_COHORT) {
    throw new TermsError(`round: ${groups.length} groups cannot be combined, expected 2 to ${MAX_COHORT}`);
  }
  const each = groups.length <= FEW_GROUPS ? 2 : 1;
  const sources = new Map<PeerId, number>();
  for (const group of groups) {
    const drawn = (await inDrawnOrder(group)).slice(0, each);
    if (drawn.length < each) {
      throw new TermsError(`round: group ${group.group} has ${drawn.length} peers that signed its sum, expected ${each}`);
    }
    for (const peer of drawn) {
      if (sources.has(peer)) throw new TermsError(`round: ${short(peer)} would speak for two groups`);
      sources.set(peer, group.group);
    }
  }
  const delegates = [...sources].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    cohort: delegates.map(([peer]) => peer),
    sources: delegates.map(([, source]) => source),
    multiplicity: Math.max(...groups.map((group) => group.peers)),
  };
}

/**
 * What a member of a group checks of those who speak for groups: nobody else could know who its group was.
 *
 * An outsider that speaks for its group could put the sum in its place; a member that speaks for another could count
 * it twice.
 *
 * @param own the number of the group, `members` who was in it.
 * @throws TermsError others speak for the group than members of it.
 */
export function checkOwnGroup({ cohort, sources }: Spoken, own: number, members: readonly PeerId[]): void {
  cohort.forEach((peer, i) => {
    const isMember = members.includes(peer);
    if (isMember === (sources[i] === own)) return;
    const whose = isMember ? `was in group ${own}` : `was not in it`;
    throw new TermsError(`round: ${short(peer)} speaks for group ${sources[i]} but ${whose}`);
  });
}

/** Signers in an order that nobody chose before the group's sum was known. */
async function inDrawnOrder({ roundId, sumDigest, signers }: FinishedGroup): Promise<PeerId[]> {
  const [label, id, digest] = [utf8("p2psa/1/delegate"), parseHex64(roundId, "round id"), parseHex64(sumDigest, "sum digest")];
  const ranked = [...new Set(signers)].map(async (peer) => {
    return { peer, rank: toHex(await sha256(label, id, digest, parseHex64(peer, "peer id"))) };
  });
  return (await Promise.all(ranked)).sort((a, b) => (a.rank < b.rank ? -1 : 1)).map(({ peer }) => peer);
}
