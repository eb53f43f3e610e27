/**
 * Fetching a run's model from a peer over a link (spec 06 §6): one request, a header, parts in order.
 *
 * Whoever fetches knows the digest and the size beforehand, from the signed plan and the signed results.
 */

import { Reader, Writer } from "./binary.js";
import type { Bytes } from "./bytes.js";
import { EncodingError } from "./errors.js";

/** Bytes of a model in one message. */
export const PART_BYTES = 256 << 10;
const VERSION = 1;

/** A message of the model class. Ids and digests are 32 bytes. */
export type ModelMessage =
  | { readonly type: "request"; readonly run: Bytes; readonly round: number; readonly digest: Bytes }
  | { readonly type: "header"; readonly run: Bytes; readonly digest: Bytes; readonly total: number }
  | { readonly type: "part"; readonly run: Bytes; readonly offset: number; readonly payload: Bytes }
  | { readonly type: "refusal"; readonly run: Bytes; readonly digest: Bytes };

/** Bytes of a model message. */
export function encodeModelMessage(message: ModelMessage): Bytes {
  const to = new Writer().uint(VERSION, 1);
  switch (message.type) {
    case "request":
      return to.uint(1, 1).raw(message.run, 32).uint(message.round, 4).raw(message.digest, 32).bytes();
    case "header":
      return to.uint(2, 1).raw(message.run, 32).raw(message.digest, 32).u64(BigInt(message.total)).bytes();
    case "part":
      return to.uint(3, 1).raw(message.run, 32).u64(BigInt(message.offset)).raw(message.payload).bytes();
    case "refusal":
      return to.uint(4, 1).raw(message.run, 32).raw(message.digest, 32).bytes();
  }
}

/**
 * Parse a model message.
 *
 * @throws EncodingError unknown version or type, a wrong length, or a number beyond 2^53.
 */
export function decodeModelMessage(data: Bytes): ModelMessage {
  const from = new Reader(data, "model message");
  const [version, type] = [from.uint(1), from.uint(1)];
  if (version !== VERSION) throw new EncodingError(`model message: version ${version}, expected ${VERSION}`);
  const message = readBody(type, from);
  from.end();
  return message;
}

function readBody(type: number, from: Reader): ModelMessage {
  const run = from.raw(32);
  switch (type) {
    case 1:
      return { type: "request", run, round: from.uint(4), digest: from.raw(32) };
    case 2:
      return { type: "header", run, digest: from.raw(32), total: safe(from.u64()) };
    case 3:
      return { type: "part", run, offset: safe(from.u64()), payload: from.view(from.remaining) };
    case 4:
      return { type: "refusal", run, digest: from.raw(32) };
    default:
      throw new EncodingError(`model message: type ${type} is unknown`);
  }
}

function safe(value: bigint): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new EncodingError(`model message: ${value} is beyond 2^53 - 1`);
  return Number(value);
}
