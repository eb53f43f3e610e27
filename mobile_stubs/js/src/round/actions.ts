/** What a round machine asks of its shell, in the order it must be done. */

import type { Bits } from "../protocol/bits.js";
import type { Bytes } from "../protocol/bytes.js";
import type { RoundError } from "../protocol/errors.js";
import type { Aggregate } from "../secagg/apply.js";

/** Give bytes to the link to a peer; `bulk` tells the kind of link message. */
export interface Send {
  readonly action: "send";
  readonly to: number;
  readonly data: Bytes;
  readonly bulk: boolean;
}

/** Write to durable storage, and only then go on with later actions. `detail` holds no secret. */
export interface Persist {
  readonly action: "persist";
  readonly entry: "joined" | "committed" | "voted" | "revealed";
  readonly detail: string;
}

/** Run `job` beside everything else and hand its outcome, or the RoundError it raised, to `finishWork`. */
export interface Work {
  readonly action: "work";
  readonly number: number;
  readonly job: () => Promise<unknown>;
}

/** The round entered a stage. */
export interface StageEntered {
  readonly action: "stage";
  readonly stage: string;
}

/** A message of a peer was refused; the round goes on. */
export interface Misbehaviour {
  readonly action: "misbehaviour";
  readonly peer: number;
  readonly reason: string;
}

/** The aggregate is known: apply it and call `provideResult`. */
export interface Revealed {
  readonly action: "revealed";
  readonly aggregate: Aggregate;
}

/** t peers signed the same result; `signatures` maps a peer's index to its RESULT signature. */
export interface Completed {
  readonly action: "completed";
  readonly modelDigest: string;
  readonly survivors: Bits;
  readonly tailDigest: Bytes;
  readonly signatures: ReadonlyMap<number, Bytes>;
}

/** The attempt is over without a result. */
export interface Failed {
  readonly action: "failed";
  readonly reason: string;
}

export type Action = Send | Persist | Work | StageEntered | Misbehaviour | Revealed | Completed | Failed;

/** What a job gave. */
export type Outcome = { readonly value: unknown } | { readonly error: RoundError };
