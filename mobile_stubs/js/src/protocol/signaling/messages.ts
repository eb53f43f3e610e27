/** Messages between a node and the signaling server (spec 03), as strict records; nothing here does I/O. */

import { type Bytes, quote, toHex } from "../bytes.js";
import { envelopeSchema } from "../envelope.js";
import { EncodingError, LimitExceededError } from "../errors.js";
import { encodeJson } from "../json.js";
import { datasetSchema } from "../manifest.js";
import {
  bytes,
  decodeJson,
  hex64,
  integer,
  list,
  name,
  nullable,
  number,
  type Of,
  oneOf,
  optional,
  record,
  type Schema,
  tagged,
  text,
} from "../schema.js";
import { MAX_COHORT, MAX_COHORTS, MAX_ROUNDS } from "../terms.js";

export const SIGNALING_VERSION = 1;
/** Bytes of one websocket message; a larger one closes the connection. */
export const MAX_FRAME_BYTES = 256 << 10;
const MAX_RELAY_BYTES = 32 << 10;
const MAX_METRICS_BYTES = 8 << 10;
const MAX_PAGE = 100;
const BLOB_PART_HEADER_BYTES = 40;
const LARGEST = Number.MAX_SAFE_INTEGER;

const requestId = integer(1, LARGEST);
const bytes32 = bytes(32, 32);
const signature = bytes(64, 64);
const sentence = text(1024);
const round = integer(1, MAX_ROUNDS);
const logged = integer(0, MAX_ROUNDS);
const attempt = integer(1, 1 << 20);
const index = integer(0, MAX_COHORT - 1);
const offset = integer(0, 2 ** 32);
const survivors = list(index, { most: MAX_COHORT });
const metrics = bytes(0, MAX_METRICS_BYTES);

const member = record({
  peer: hex64,
  sealing_key: optional(nullable(bytes32), null),
  sealing_signature: optional(nullable(signature), null),
});
/** A peer another may link to; the signature binds its sealing key to its identity. */
export type Member = Of<typeof member>;

const memberSignature = record({ index, signature });

const runState = oneOf("waiting", "running", "finished", "stopped", "failed");
const runStatus = record({
  run: hex64,
  plan: hex64,
  name,
  author: hex64,
  state: runState,
  reason: optional(sentence, ""),
  rounds: integer(0, LARGEST),
  round: logged,
  attempt: integer(0, LARGEST),
  model_digest: hex64,
  accepted: integer(0, LARGEST),
  ready: integer(0, LARGEST),
  opened_at: number(),
});
/** Where a run stands. `round` counts logged rounds; `model_digest` is the model they produced. */
export type RunStatus = Of<typeof runStatus>;

const group = integer(0, MAX_COHORTS - 1);
const peerCount = integer(3, MAX_COHORT);
/** Where a cohort stands in a round of many (spec 08 §2); without one, it is the round's only cohort. */
const place = optional(nullable(record({ level: integer(1, 2), group })), null);
const combiningSchema = record({
  sources: list(group, { least: 3, most: MAX_COHORT }),
  multiplicity: peerCount,
  groups: list(record({ group, members: peerCount, survivors: peerCount }), { least: 2, most: MAX_COHORTS }),
});
/** What delegates combine: for each its group, the most peers of one, and the signaling server's word on each group. */
export type Combining = Of<typeof combiningSchema>;
const combining = optional(nullable(combiningSchema), null);

const logEntry = record({
  run: hex64,
  round,
  attempt,
  round_id: hex64,
  cohort: list(hex64, { least: 3, most: MAX_COHORT }),
  survivors,
  previous_digest: hex64,
  model_digest: hex64,
  metrics,
  signatures: list(memberSignature, { most: MAX_COHORT }),
  seconds: number(),
  logged_at: number(),
  combining,
});
/** One logged round, with everything needed to check it. */
export type LogEntry = Of<typeof logEntry>;

const FROM_SERVER = {
  challenge: record({ versions: list(integer(0, LARGEST), { least: 1, most: 16 }), nonce: bytes32, server: hex64, name }),
  welcome: record({ signature }),
  error: record({ re: optional(nullable(integer(0, LARGEST)), null), code: text(64), message: text(2048) }),
  blob_slice: record({ re: requestId, digest: hex64, offset, length: offset, size: offset }),
  run_reply: record({ re: requestId, status: runStatus, envelope: optional(nullable(envelopeSchema), null) }),
  runs: record({ re: requestId, runs: list(runStatus, { most: MAX_PAGE }), next: optional(nullable(integer(0, LARGEST)), null) }),
  log_page: record({ re: requestId, entries: list(logEntry, { most: MAX_PAGE }), next: optional(nullable(integer(0, LARGEST)), null) }),
  offer: record({ run: hex64, envelope: envelopeSchema, plan_envelope: envelopeSchema, round: logged, model_digest: hex64 }),
  run_changed: record({ status: runStatus }),
  done: record({ re: requestId }),
  round_start: record({
    run: hex64,
    round,
    attempt,
    round_id: hex64,
    model_digest: hex64,
    members: list(member, { least: 3, most: MAX_COHORT }),
    place,
    combining,
  }),
  round_aborted: record({ run: hex64, round, attempt, reason: sentence, place }),
  round_opened: record({ run: hex64, round, attempt, cohort: list(hex64, { least: 3, most: MAX_COHORT }), place }),
  round_logged: record({ entry: logEntry }),
  peer_gone: record({ run: hex64, peer: hex64, reason: optional(oneOf("left", "lost", "replaced"), "lost") }),
  peer_back: record({ run: hex64, peer: hex64 }),
  relayed: record({
    from: hex64,
    via: hex64,
    kind: oneOf("offer", "answer", "candidate", "sealed"),
    payload: bytes(1, MAX_RELAY_BYTES),
  }),
  introduction: record({
    re: requestId,
    via: hex64,
    run: hex64,
    round: logged,
    model_digest: hex64,
    holders: list(member, { most: 64 }),
    seconds: number(),
  }),
  introduced: record({ via: hex64, run: hex64, peer: member, seconds: number() }),
} as const;

const FROM_PEER = {
  authenticate: record({
    version: integer(0, LARGEST),
    peer: hex64,
    nonce: bytes32,
    audience: text(300, { least: 1 }),
    signature,
  }),
  register: record({
    id: requestId,
    datasets: list(datasetSchema, { most: 32 }),
    sealing_key: optional(nullable(bytes32), null),
    sealing_signature: optional(nullable(signature), null),
    max_runs: optional(integer(1, 1024), 4),
  }),
  accept: record({ id: requestId, run: hex64, dataset: optional(nullable(name), null) }),
  ready: record({ id: requestId, run: hex64, round: logged, model_digest: hex64 }),
  decline: record({ id: requestId, run: hex64, reason: optional(sentence, "") }),
  withdraw: record({ id: requestId, run: hex64 }),
  get_blob: record({ id: requestId, digest: hex64, offset, length: integer(1, 4 << 20) }),
  get_run: record({ id: requestId, run: hex64 }),
  list_runs: record({
    id: requestId,
    after: optional(integer(0, LARGEST), 0),
    limit: optional(integer(1, MAX_PAGE), 50),
    plan: optional(nullable(hex64), null),
  }),
  log: record({ id: requestId, run: hex64, first: optional(round, 1), limit: optional(integer(1, MAX_PAGE), 20) }),
  result: record({
    id: requestId,
    run: hex64,
    round,
    attempt,
    model_digest: hex64,
    survivors,
    metrics,
    signatures: list(memberSignature, { least: 1, most: MAX_COHORT }),
    place,
  }),
  round_failed: record({
    id: requestId,
    run: hex64,
    round,
    attempt,
    reason: sentence,
    missing: optional(list(hex64, { most: MAX_COHORT }), []),
    place,
  }),
  relay: record({
    id: requestId,
    to: hex64,
    via: hex64,
    kind: oneOf("offer", "answer", "candidate", "sealed"),
    payload: bytes(1, MAX_RELAY_BYTES),
  }),
  introduce: record({ id: requestId, run: hex64 }),
} as const;

type Messages<T> = { [K in keyof T]: T[K] extends Schema<infer F> ? F & { readonly type: K } : never };

/** Every message of the signaling server that a node reads, by type. */
export type ServerMessages = Messages<typeof FROM_SERVER>;
export type ServerMessage = ServerMessages[keyof ServerMessages];
/** Every message that a node sends, by type. */
export type PeerMessages = Messages<typeof FROM_PEER>;
export type PeerMessage = PeerMessages[keyof PeerMessages];

const serverSchema = tagged<ServerMessage>(FROM_SERVER);
const peerSchema = tagged<PeerMessage>(FROM_PEER);

/**
 * Parse the signaling server's text frame.
 *
 * @throws LimitExceededError, EncodingError it is too large, or no message that a node reads.
 */
export function decodeServerMessage(frame: string): ServerMessage {
  return decodeJson(frame, serverSchema, "message from the signaling server", MAX_FRAME_BYTES);
}

/**
 * The text frame of a message of this peer.
 *
 * @throws LimitExceededError it is larger than the other side would accept.
 */
export function encodePeerMessage(message: PeerMessage): string {
  const data = encodeJson(peerSchema.write(message));
  if (data.length > MAX_FRAME_BYTES) {
    throw new LimitExceededError(`${message.type}: ${data.length} bytes, at most ${MAX_FRAME_BYTES} fit a frame`);
  }
  return new TextDecoder().decode(data);
}

/** What a blob holds from a byte on. */
export interface BlobPart {
  readonly digest: string;
  readonly offset: number;
  readonly data: Bytes;
}

/**
 * Parse a binary frame: digest (32), u64 offset, then bytes.
 *
 * @throws LimitExceededError, EncodingError too long, or too short to hold a byte.
 */
export function decodeBlobPart(frame: Bytes): BlobPart {
  if (frame.length > MAX_FRAME_BYTES) {
    throw new LimitExceededError(`blob part: ${frame.length} bytes, at most ${MAX_FRAME_BYTES} are accepted`);
  }
  if (frame.length <= BLOB_PART_HEADER_BYTES) {
    throw new EncodingError(`blob part: ${frame.length} bytes, expected more than ${BLOB_PART_HEADER_BYTES}`);
  }
  const at = new DataView(frame.buffer, frame.byteOffset).getBigUint64(32, true);
  if (at > BigInt(LARGEST)) throw new EncodingError(`blob part: offset ${at} is beyond 2^53 - 1`);
  return { digest: toHex(frame.subarray(0, 32)), offset: Number(at), data: frame.subarray(BLOB_PART_HEADER_BYTES) };
}

/** `host:port` of a ws:// or wss:// URL in lower case: what the peer signs as the place it dialled. */
export function audienceOf(url: string): string {
  let parts: URL;
  try {
    parts = new URL(url);
  } catch {
    throw new EncodingError(`expected a URL like wss://host:port, got ${quote(url)}`);
  }
  const usual = parts.protocol === "ws:" ? "80" : parts.protocol === "wss:" ? "443" : null;
  if (usual === null || parts.hostname === "") {
    throw new EncodingError(`expected a URL like wss://host:port, got ${quote(url)}`);
  }
  return `${parts.hostname}:${parts.port === "" ? usual : parts.port}`.toLowerCase();
}

