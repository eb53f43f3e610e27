/** What signaling announces, checked before this node joins: a cohort that the terms allow (spec 06 §3, 08 §3a). */

import { short } from "../protocol/bytes.js";
import { checkOwnGroup } from "../protocol/cohorts.js";
import { ProtocolError } from "../protocol/errors.js";
import type { PeerId } from "../protocol/identity.js";
import type { ServerMessages } from "../protocol/signaling/messages.js";
import type { RunTerms } from "../protocol/terms.js";
import { cohortRoundIdOf, combiningParameters, type GroupSum, type Place } from "../secagg/combining.js";
import type { RoundParameters } from "../secagg/parameters.js";

/** A cohort as signaling names it, without what is only about links and models. */
export type Announcement = Pick<ServerMessages["round_start"], "run" | "round" | "attempt" | "round_id" | "place" | "combining"> & {
  readonly members: readonly { readonly peer: PeerId }[];
};

/** Tells the cohorts of one run apart without a digest. */
export function nameOf({ round, attempt, place }: Pick<Announcement, "round" | "attempt" | "place">): string {
  return [round, attempt, ...(place === null ? [] : [place.level, place.group])].join("/");
}

/** Which group's sum this node holds in one attempt, and the parameters it was found with. */
export interface OwnGroup {
  readonly round: number;
  readonly attempt: number;
  readonly group: number;
  readonly parameters: RoundParameters;
}

/** The sum of this node's group, which it may speak for once. */
export type HeldSum = OwnGroup & { readonly total: GroupSum };

/**
 * Check an announcement against the run's terms; gives the cohort.
 *
 * @throws ProtocolError an attempt, id, place or cohort that the terms do not allow.
 */
export async function checkAnnouncement(start: Announcement, terms: RunTerms, own: PeerId): Promise<readonly PeerId[]> {
  const what = `run ${short(start.run)}`;
  if (start.attempt > terms.retries + 1) {
    // every attempt trains anew: without this, signaling could have as many sums of one round as it likes
    throw new ProtocolError(
      `${what}: signaling names attempt ${start.attempt} at round ${start.round}, terms say ${terms.retries + 1} at most`,
    );
  }
  checkPlace(start, terms);
  if (start.round_id !== (await cohortRoundIdOf(start.run, start.round, start.attempt, start.place))) {
    throw new ProtocolError(`${what}: round id ${short(start.round_id)} is not that of the round`);
  }
  const cohort = start.members.map((member) => member.peer);
  if (start.combining === null && (cohort.length < terms.min_cohort || cohort.length > terms.cohort_size)) {
    throw new ProtocolError(`${what}: a cohort of ${cohort.length}, terms say ${terms.min_cohort} to ${terms.cohort_size}`);
  }
  if (!cohort.includes(own)) throw new ProtocolError(`${what}: the cohort is named without this peer`);
  const strangers = terms.members.length === 0 ? [] : cohort.filter((peer) => !terms.members.includes(peer));
  if (strangers.length > 0 || start.round > terms.rounds) {
    throw new ProtocolError(
      `${what}: the cohort names ${strangers.length} peers outside the author's list, ` +
        `or round ${start.round} of ${terms.rounds}`,
    );
  }
  return cohort;
}

/**
 * Ids of the cohorts of which a peer joins one only: all those that sum updates, or the delegates'.
 *
 * One update in two sums of the same attempt could be found by their difference.
 */
export function rivalRoundIds({ run, round, attempt, place }: Announcement, terms: RunTerms): Promise<readonly string[]> {
  const groups = Array.from({ length: terms.cohorts }, (_, group) => ({ level: 1, group }));
  const rivals: readonly (Place | null)[] = place !== null && place.level > 1 ? [place] : [null, ...groups];
  return Promise.all(rivals.map((rival) => cohortRoundIdOf(run, round, attempt, rival)));
}

/**
 * Parameters of a cohort of delegates, over the sum this node holds.
 *
 * @throws ProtocolError it holds no sum of this attempt, or the announcement does not fit it.
 */
export function delegateParameters(start: Announcement, held: OwnGroup | null, own: PeerId, terms: RunTerms): RoundParameters {
  const what = `run ${short(start.run)}: round ${start.round} attempt ${start.attempt}`;
  const { combining } = start;
  const cohort = start.members.map((member) => member.peer);
  if (combining === null || held === null || held.round !== start.round || held.attempt !== start.attempt) {
    throw new ProtocolError(`${what}: named as a delegate, but this node holds no group's sum of that attempt`);
  }
  const { sources, multiplicity } = combining;
  if (sources.length !== cohort.length || Math.max(...sources) >= terms.cohorts) {
    throw new ProtocolError(
      `${what}: groups ${sources.join(", ")} for ${cohort.length} delegates, terms say ${terms.cohorts} cohorts`,
    );
  }
  const source = sources[cohort.indexOf(own)];
  if (source !== held.group) {
    throw new ProtocolError(`${what}: named for group ${source}, this node was in group ${held.group}`);
  }
  const { size, setting } = held.parameters;
  if (multiplicity < size || multiplicity > terms.cohort_size) {
    throw new ProtocolError(
      `${what}: groups of ${multiplicity} peers at most, this node's had ${size} and terms say ${terms.cohort_size}`,
    );
  }
  const delegation = { cohort, sources, multiplicity };
  checkOwnGroup(delegation, held.group, setting.cohort);
  return combiningParameters(held.parameters, delegation, start.round_id);
}

function checkPlace({ run, place, combining }: Announcement, terms: RunTerms): void {
  const isLast = place !== null && place.level > 1;
  const fits = isLast ? combining !== null && place.group === 0 : combining === null && (place?.group ?? 0) < terms.cohorts;
  if (fits && (place === null || terms.cohorts > 1)) return;
  const where = place === null ? "no place" : `level ${place.level} group ${place.group}`;
  throw new ProtocolError(
    `run ${short(run)}: signaling names ${where} ${combining === null ? "without" : "with"} groups to combine, ` +
      `terms say ${terms.cohorts} cohorts`,
  );
}
