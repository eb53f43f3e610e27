/** The messages of p2psa/1 (spec 07 §3) as values. Sets are bit masks, everything else bytes and numbers. */

import type { Bits } from "../protocol/bits.js";
import type { Bytes } from "../protocol/bytes.js";

/** What a leader decides on. */
export const Decision = { ROSTER: 1, MASKED: 2, SURVIVORS: 3, LOST: 4 } as const;
/** Which of a peer's two secrets a share is of. */
export const Secret = { SEED: 1, MASK_KEY: 2 } as const;
/** What a peer asks another one for. */
export const Asked = { ADVERTS: 1, COMMITS: 2, SUMS: 3, CERTIFICATE: 4 } as const;

/** R0: the keys and commitments of one peer. */
export interface Advert {
  readonly type: "advert";
  readonly t0: Bytes;
  readonly maskPublic: Bytes;
  readonly encPublic: Bytes;
  readonly seedCommitment: Bytes;
  readonly fingerprint: Bytes;
}

/** A leader's decision; `members` is a set of peers, or of chunks for LOST. */
export interface Decide {
  readonly type: "decide";
  readonly kind: number;
  readonly view: number;
  readonly base: Bytes;
  readonly members: Bits;
  readonly root: Bytes;
}

/** R1: a box with two shares for one peer. */
export interface Share {
  readonly type: "share";
  readonly box: Bytes;
}

/** R1: whose shares the sender holds. */
export interface Ack {
  readonly type: "ack";
  readonly view: number;
  readonly held: Bits;
}

/** R2: digests of every packed chunk of the sender. */
export interface Commit {
  readonly type: "commit";
  readonly t2: Bytes;
  readonly digests: readonly Bytes[];
}

/** R3: commits held, and per owned chunk whose contributions are held. */
export interface Have {
  readonly type: "have";
  readonly view: number;
  readonly commits: Bits;
  readonly chunks: readonly (readonly [chunk: number, contributors: Bits])[];
}

/** R3: the one vote a peer casts in a round. */
export interface Vote {
  readonly type: "vote";
  readonly t2: Bytes;
  readonly survivors: Bits;
  readonly root: Bytes;
}

/** R3: signatures over one vote, in ascending order of `voters`. */
export interface Certificate {
  readonly type: "certificate";
  readonly t2: Bytes;
  readonly survivors: Bits;
  readonly root: Bytes;
  readonly voters: Bits;
  readonly signatures: readonly Bytes[];
}

/** One share about another peer's secret. */
export interface RevealedShare {
  readonly about: number;
  readonly kind: number;
  readonly share: Bytes;
}

/** R4: the sender's own seed, and shares about others. */
export interface Reveal {
  readonly type: "reveal";
  readonly seed: Bytes | null;
  readonly shares: readonly RevealedShare[];
}

/** R5: digests of the next model and of the tail, and the survivor set, signed for everybody. */
export interface Result {
  readonly type: "result";
  readonly modelDigest: Bytes;
  readonly tailDigest: Bytes;
  readonly survivors: Bits;
}

/** To the leader of a new view: every decision the sender adopted, as received. */
export interface Status {
  readonly type: "status";
  readonly view: number;
  readonly decisions: readonly Bytes[];
}

/** A signed message of another peer, unchanged. */
export interface Forward {
  readonly type: "forward";
  readonly message: Bytes;
}

/** Asks one peer for what the sender lacks. */
export interface Need {
  readonly type: "need";
  readonly what: number;
  readonly members: Bits;
}

/** A leader gives a chunk to a backup owner. */
export interface Assign {
  readonly type: "assign";
  readonly view: number;
  readonly chunk: number;
  readonly owner: number;
}

/** The sender leaves this attempt. */
export interface Abort {
  readonly type: "abort";
  readonly reason: number;
}

/** R2: one packed masked chunk. */
export interface Chunk {
  readonly type: "chunk";
  readonly chunk: number;
  readonly packed: Bytes;
}

/** R5: one packed chunk of the aggregate, signed by its owner. */
export interface Sum {
  readonly type: "sum";
  readonly chunk: number;
  readonly signature: Bytes;
  readonly packed: Bytes;
}

/** Any message of a round. */
export type Message =
  | Advert
  | Decide
  | Share
  | Ack
  | Commit
  | Have
  | Vote
  | Certificate
  | Reveal
  | Result
  | Status
  | Forward
  | Need
  | Assign
  | Abort
  | Chunk
  | Sum;

/** Numbers of the types on the wire. */
export const TYPE_NUMBERS: Readonly<Record<Message["type"], number>> = {
  advert: 1,
  decide: 2,
  share: 3,
  ack: 4,
  commit: 5,
  have: 6,
  vote: 7,
  certificate: 8,
  reveal: 9,
  result: 10,
  status: 11,
  forward: 12,
  need: 13,
  assign: 14,
  abort: 15,
  chunk: 32,
  sum: 33,
};

/** Messages that end in a signature of their sender, and that FORWARD may carry. */
export const SIGNED: ReadonlySet<Message["type"]> = new Set(["advert", "decide", "commit", "vote", "result"]);

/** Messages that travel as link messages of kind BULK. */
export const BULK: ReadonlySet<Message["type"]> = new Set(["chunk", "sum"]);

/** A decoded message, who made it, and its exact bytes. `signature` is empty where the type carries none. */
export interface Received<M extends Message = Message> {
  readonly sender: number;
  readonly message: M;
  readonly signature: Bytes;
  readonly raw: Bytes;
}

/** Whether a received message is of a type. */
export function isOf<T extends Message["type"]>(
  received: Received,
  type: T,
): received is Received<Extract<Message, { type: T }>> {
  return received.message.type === type;
}
