/** Values of vector files: hexadecimal bytes, ascending lists of indexes (spec/README.md, "Reading a vector"). */

import { bitsOf, indexesOf } from "../protocol/bits.js";
import { fromHex, toHex } from "../protocol/bytes.js";
import { MessageError } from "../protocol/errors.js";
import { ChunkPlan } from "../secagg/parameters.js";
import type { Bounds } from "../round/layout.js";
import { type Message, type Received, SIGNED, Secret } from "../round/messages.js";

/** Whatever JSON holds. */
// oxlint-disable-next-line typescript/no-explicit-any -- each operation's input has the shape of its vector schema
export type Json = any;

/** What a peer knows of the round when it decodes. */
export function boundsOf(context: Json): Bounds {
  const elements = Math.ceil(context.elements / 8) * 8;
  const plan = new ChunkPlan(elements, Array.from({ length: context.masked }, (_, i) => i), 1);
  const chunkBytes = Array.from({ length: plan.count }, (_, chunk) => {
    const [start, end] = plan.bounds(chunk);
    return ((end - start) / 8) * context.ring_bits;
  });
  return { peers: context.peers, tag: fromHex(context.round_id).slice(0, 8), chunkBytes };
}

/** The decoded form of a message. */
export function toJson(received: Received): Json {
  const signature = SIGNED.has(received.message.type) ? { signature: toHex(received.signature) } : {};
  return { type: received.message.type, sender: received.sender, ...bodyToJson(received.message), ...signature };
}

function bodyToJson(m: Message): Json {
  switch (m.type) {
    case "advert":
      return {
        t0: toHex(m.t0),
        mask_key: toHex(m.maskPublic),
        enc_key: toHex(m.encPublic),
        seed_commitment: toHex(m.seedCommitment),
        fingerprint: toHex(m.fingerprint),
      };
    case "decide":
      return { kind: m.kind, view: m.view, base: toHex(m.base), set: indexesOf(m.members), root: toHex(m.root) };
    case "share":
      return { box: toHex(m.box) };
    case "ack":
      return { view: m.view, held: indexesOf(m.held) };
    case "commit":
      return { t2: toHex(m.t2), chunks: m.digests.map(toHex) };
    case "have": {
      const chunks = m.chunks.map(([chunk, held]) => ({ chunk, contributors: indexesOf(held) }));
      return { view: m.view, commits: indexesOf(m.commits), chunks };
    }
    case "vote":
      return { t2: toHex(m.t2), survivors: indexesOf(m.survivors), root: toHex(m.root) };
    case "certificate":
      return {
        t2: toHex(m.t2),
        survivors: indexesOf(m.survivors),
        root: toHex(m.root),
        voters: indexesOf(m.voters),
        signatures: m.signatures.map(toHex),
      };
    case "reveal": {
      const shares = m.shares.map(({ about, kind, share }) => ({
        about,
        kind: kind === Secret.SEED ? "b" : "sk",
        share: toHex(share),
      }));
      return { b: m.seed === null ? null : toHex(m.seed), shares };
    }
    case "result":
      return { model: toHex(m.modelDigest), tail: toHex(m.tailDigest), survivors: indexesOf(m.survivors) };
    case "status":
      return { view: m.view, decisions: m.decisions.map(toHex) };
    case "forward":
      return { message: toHex(m.message) };
    case "need":
      return { what: m.what, set: indexesOf(m.members) };
    case "assign":
      return { view: m.view, chunk: m.chunk, owner: m.owner };
    case "abort":
      return { reason: m.reason };
    case "chunk":
      return { chunk: m.chunk, packed: toHex(m.packed) };
    case "sum":
      return { chunk: m.chunk, signature: toHex(m.signature), packed: toHex(m.packed) };
  }
}

/** A set of indexes. */
export const setOf = bitsOf;

/** Little-endian binary32 in hexadecimal. */
export function floatsOf(text: string): Float32Array<ArrayBuffer> {
  return new Float32Array(fromHex(text).buffer);
}

/** Refuse an input for a reason that no type of the library has. */
export function refuse(reason: string): never {
  throw new MessageError(reason);
}
