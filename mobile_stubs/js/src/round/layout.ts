/** The byte layout of every message (spec 07 §3): lengths, indexes and sets are checked before anything is kept. */

import { Reader, Writer } from "../protocol/binary.js";
import { type Bits, bit, indexesOf, NONE } from "../protocol/bits.js";
import type { Bytes } from "../protocol/bytes.js";
import { equalBytes } from "../protocol/bytes.js";
import { MessageError, ProtocolError } from "../protocol/errors.js";
import { SIGNATURE_BYTES } from "../protocol/identity.js";
import { SHARE_BOX_BYTES } from "../secagg/keys.js";
import { type Certificate, Decision, type Message, type Received, type Reveal, SIGNED, TYPE_NUMBERS } from "./messages.js";

export const VERSION = 1;
export const HEADER_BYTES = 12;
export const MAX_CONTROL_BYTES = 65_536;
const DECIDE_BYTES = HEADER_BYTES + 74 + SIGNATURE_BYTES;
const MAX_DECISIONS = 4;

/**
 * What a peer knows of the round when it decodes. `chunkBytes` is the packed size of each chunk; while K is not known
 * it is null, and chunk indexes and counts are bounded by the number of peers.
 */
export interface Bounds {
  readonly peers: number;
  readonly tag: Bytes;
  readonly chunkBytes: readonly number[] | null;
}

type Layouts = {
  readonly [T in Message["type"]]: {
    readonly write: (message: Extract<Message, { type: T }>, to: Writer) => void;
    readonly read: (from: Fields) => Omit<Extract<Message, { type: T }>, "type">;
  };
};

/** Reads fields that are bounded by the round. */
class Fields extends Reader {
  constructor(
    data: Bytes,
    readonly bounds: Bounds,
  ) {
    super(data, "round message");
  }

  get chunkCount(): number {
    return this.bounds.chunkBytes?.length ?? this.bounds.peers;
  }

  below(size: 1 | 2, bound: number, what: string): number {
    const value = this.uint(size);
    if (value >= bound) throw new MessageError(`round message: ${what} ${value}, expected less than ${bound}`);
    return value;
  }

  atMost(size: 1 | 2, bound: number, what: string): number {
    return this.below(size, bound + 1, what);
  }

  peer(what: string): number {
    return this.below(2, this.bounds.peers, what);
  }

  viewNumber(): number {
    return this.below(1, this.bounds.peers, "view");
  }

  set(bound: number, what: string): Bits {
    const bits = this.u64();
    if (bits >> BigInt(bound) !== NONE) {
      throw new MessageError(`round message: ${what} names an index beyond ${bound}`);
    }
    return bits;
  }

  peers(what: string): Bits {
    return this.set(this.bounds.peers, what);
  }

  chunk(): number {
    return this.below(2, this.chunkCount, "chunk");
  }

  packed(chunk: number): Bytes {
    const expected = this.bounds.chunkBytes?.[chunk];
    if (expected !== undefined && this.remaining !== expected) {
      throw new MessageError(`round message: chunk ${chunk} has ${this.remaining} bytes, expected ${expected}`);
    }
    return this.view(this.remaining);
  }

  list<T>(count: number, item: () => T): T[] {
    return Array.from({ length: count }, item);
  }

  oneOf(least: number, most: number, what: string): number {
    const value = this.uint(1);
    if (value < least || value > most) throw new MessageError(`round message: ${what} ${value} does not exist`);
    return value;
  }
}

const LAYOUTS: Layouts = {
  advert: {
    write: (m, to) =>
      void to.raw(m.t0, 32).raw(m.maskPublic, 32).raw(m.encPublic, 32).raw(m.seedCommitment, 32).raw(m.fingerprint, 32),
    read: (from) => ({
      t0: from.raw(32),
      maskPublic: from.raw(32),
      encPublic: from.raw(32),
      seedCommitment: from.raw(32),
      fingerprint: from.raw(32),
    }),
  },
  decide: {
    write: (m, to) => void to.uint(m.kind, 1).uint(m.view, 1).raw(m.base, 32).u64(m.members).raw(m.root, 32),
    read: readDecide,
  },
  share: {
    write: (m, to) => void to.raw(m.box, SHARE_BOX_BYTES),
    read: (from) => ({ box: from.raw(SHARE_BOX_BYTES) }),
  },
  ack: {
    write: (m, to) => void to.uint(m.view, 1).u64(m.held),
    read: (from) => ({ view: from.viewNumber(), held: from.peers("shares held") }),
  },
  commit: {
    write: (m, to) => {
      to.raw(m.t2, 32).uint(m.digests.length, 2);
      for (const digest of m.digests) to.raw(digest, 32);
    },
    read: readCommit,
  },
  have: {
    write: (m, to) => {
      to.uint(m.view, 1).u64(m.commits).uint(m.chunks.length, 2);
      for (const [chunk, contributors] of m.chunks) to.uint(chunk, 2).u64(contributors);
    },
    read: readHave,
  },
  vote: {
    write: (m, to) => void to.raw(m.t2, 32).u64(m.survivors).raw(m.root, 32),
    read: (from) => ({ t2: from.raw(32), survivors: from.peers("survivors"), root: from.raw(32) }),
  },
  certificate: {
    write: (m, to) => {
      to.raw(m.t2, 32).u64(m.survivors).raw(m.root, 32).u64(m.voters);
      for (const signature of m.signatures) to.raw(signature, SIGNATURE_BYTES);
    },
    read: readCertificate,
  },
  reveal: { write: writeReveal, read: readReveal },
  result: {
    write: (m, to) => void to.raw(m.modelDigest, 32).raw(m.tailDigest, 32).u64(m.survivors),
    read: (from) => ({ modelDigest: from.raw(32), tailDigest: from.raw(32), survivors: from.peers("survivors") }),
  },
  status: {
    write: (m, to) => {
      to.uint(m.view, 1).uint(m.decisions.length, 1);
      for (const decision of m.decisions) to.uint(decision.length, 2).raw(decision);
    },
    read: readStatus,
  },
  forward: {
    write: (m, to) => void to.uint(m.message.length, 2).raw(m.message),
    read: readForward,
  },
  need: {
    write: (m, to) => void to.uint(m.what, 1).u64(m.members),
    read: (from) => {
      const what = from.oneOf(1, 4, "request");
      return { what, members: from.set(what === 3 ? from.chunkCount : from.bounds.peers, "set") };
    },
  },
  assign: {
    write: (m, to) => void to.uint(m.view, 1).uint(m.chunk, 2).uint(m.owner, 2),
    read: (from) => ({ view: from.viewNumber(), chunk: from.chunk(), owner: from.peer("owner") }),
  },
  abort: {
    write: (m, to) => void to.uint(m.reason, 1),
    read: (from) => ({ reason: from.uint(1) }),
  },
  chunk: {
    write: (m, to) => void to.uint(m.chunk, 2).raw(m.packed),
    read: (from) => {
      const chunk = from.chunk();
      return { chunk, packed: from.packed(chunk) };
    },
  },
  sum: {
    write: (m, to) => void to.uint(m.chunk, 2).raw(m.signature, SIGNATURE_BYTES).raw(m.packed),
    read: (from) => {
      const chunk = from.chunk();
      return { chunk, signature: from.raw(SIGNATURE_BYTES), packed: from.packed(chunk) };
    },
  },
};

const NAMES = new Map(Object.entries(TYPE_NUMBERS).map(([name, number]) => [number, name as Message["type"]]));

/** Bytes of a message without the signature that some types end in. */
export function encodeBody(sender: number, message: Message, tag: Bytes): Bytes {
  const to = new Writer().uint(VERSION, 1).uint(TYPE_NUMBERS[message.type], 1).uint(sender, 2).raw(tag, 8);
  (LAYOUTS[message.type].write as (message: Message, to: Writer) => void)(message, to);
  return to.bytes();
}

/** The type a message says it has; null where there is none of that number. */
export function typeOf(data: Bytes): Message["type"] | null {
  return NAMES.get(data[1] ?? 0) ?? null;
}

/**
 * Parse a message. Signatures are not looked at here.
 *
 * @throws MessageError wrong version, type, round, length, index or set.
 */
export function parseMessage(data: Bytes, bounds: Bounds): Received {
  try {
    return parse(data, bounds);
  } catch (error) {
    if (error instanceof MessageError) throw error;
    if (error instanceof ProtocolError) throw new MessageError(error.message);
    throw error;
  }
}

function parse(data: Bytes, bounds: Bounds): Received {
  const from = new Fields(data, bounds);
  const version = from.uint(1);
  if (version !== VERSION) throw new MessageError(`round message: expected version ${VERSION}, got ${version}`);
  const number = from.uint(1);
  const type = NAMES.get(number);
  if (type === undefined) throw new MessageError(`round message: no message has type ${number}`);
  if (number < TYPE_NUMBERS.chunk && data.length > MAX_CONTROL_BYTES) {
    throw new MessageError(`${type}: ${data.length} bytes, at most ${MAX_CONTROL_BYTES} are accepted`);
  }
  const sender = from.peer("sender");
  if (!equalBytes(from.view(8), bounds.tag)) throw new MessageError(`${type} from peer ${sender} belongs to another round`);
  const message = { type, ...LAYOUTS[type].read(from) } as Message;
  const signature = SIGNED.has(type) ? from.raw(SIGNATURE_BYTES) : new Uint8Array(0);
  from.end();
  return { sender, message, signature, raw: data };
}

function readDecide(from: Fields) {
  const kind = from.oneOf(Decision.ROSTER, Decision.LOST, "decision");
  const view = from.viewNumber();
  const base = from.raw(32);
  const members = kind === Decision.LOST ? from.set(from.chunkCount, "set") : from.peers("set");
  const root = from.raw(32);
  if ((kind === Decision.MASKED || kind === Decision.LOST) && root.some((value) => value !== 0)) {
    throw new MessageError(`decide: a decision of kind ${kind} has root 0`);
  }
  return { kind, view, base, members, root };
}

function readCommit(from: Fields) {
  const t2 = from.raw(32);
  const count = from.atMost(2, from.chunkCount, "count of chunks");
  if (from.bounds.chunkBytes !== null && count !== from.chunkCount) {
    throw new MessageError(`commit: ${count} chunks, expected ${from.chunkCount}`);
  }
  return { t2, digests: from.list(count, () => from.raw(32)) };
}

function readHave(from: Fields) {
  const view = from.viewNumber();
  const commits = from.peers("commits");
  const count = from.atMost(2, from.chunkCount, "count of chunks");
  const chunks = from.list(count, () => [from.chunk(), from.peers("contributors")] as const);
  if (new Set(chunks.map(([chunk]) => chunk)).size !== count) throw new MessageError("have: a chunk is named twice");
  return { view, commits, chunks };
}

function readCertificate(from: Fields): Omit<Certificate, "type"> {
  const t2 = from.raw(32);
  const survivors = from.peers("survivors");
  const root = from.raw(32);
  const voters = from.peers("voters");
  return { t2, survivors, root, voters, signatures: indexesOf(voters).map(() => from.raw(SIGNATURE_BYTES)) };
}

function writeReveal(message: Reveal, to: Writer): void {
  to.uint(message.seed === null ? 0 : 1, 1);
  if (message.seed !== null) to.raw(message.seed, 32);
  to.uint(message.shares.length, 2);
  for (const { about, kind, share } of message.shares) to.uint(about, 2).uint(kind, 1).raw(share, 32);
}

function readReveal(from: Fields): Omit<Reveal, "type"> {
  const seed = from.oneOf(0, 1, "flag") === 1 ? from.raw(32) : null;
  const count = from.atMost(2, from.bounds.peers, "count of shares");
  const shares = from.list(count, () => ({
    about: from.peer("peer"),
    kind: from.oneOf(1, 2, "kind of share"),
    share: from.raw(32),
  }));
  let seen = NONE;
  for (const { about } of shares) {
    if ((seen & bit(about)) !== NONE) throw new MessageError(`reveal: peer ${about} is named twice`);
    seen |= bit(about);
  }
  return { seed, shares };
}

function readStatus(from: Fields) {
  const view = from.viewNumber();
  const count = from.atMost(1, MAX_DECISIONS, "count of decisions");
  const decisions = from.list(count, () => {
    const size = from.uint(2);
    if (size !== DECIDE_BYTES) throw new MessageError(`status: a decide has ${DECIDE_BYTES} bytes, got ${size}`);
    return inner(from.raw(size), from.bounds, (type) => type === "decide");
  });
  return { view, decisions };
}

function readForward(from: Fields) {
  return { message: inner(from.raw(from.uint(2)), from.bounds, (type) => SIGNED.has(type)) };
}

/** A message inside another one; its type is looked at first, so that messages never nest deeper. */
function inner(data: Bytes, bounds: Bounds, allowed: (type: Message["type"]) => boolean): Bytes {
  const type = typeOf(data);
  if (type === null || !allowed(type)) throw new MessageError(`a ${type ?? "message of no type"} is not passed on`);
  parse(data, bounds);
  return data;
}
