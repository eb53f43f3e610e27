/** Encodes, signs, decodes and verifies the messages of one attempt (spec 07 §3). */

import { Writer } from "../protocol/binary.js";
import { type Bytes, concat, fromHex } from "../protocol/bytes.js";
import { sha256 } from "../protocol/crypto.js";
import { LimitExceededError, MessageError } from "../protocol/errors.js";
import { type Identity, SIGNATURE_BYTES, verify } from "../protocol/identity.js";
import type { ChunkPlan, RoundParameters } from "../secagg/parameters.js";
import { type Bounds, encodeBody, HEADER_BYTES, MAX_CONTROL_BYTES, parseMessage } from "./layout.js";
import { BULK, type Message, type Received, type Result, SIGNED, type Vote } from "./messages.js";

export const RESULT_LABEL = "peerplan/1/result";
export const SUM_LABEL = "p2psa/1/sum";

/** Bytes of a bulk message beside its packed chunk. */
export const BULK_OVERHEAD_BYTES = HEADER_BYTES + 2 + SIGNATURE_BYTES;

/** The eight bytes by which a message names its round. */
export function roundTag(roundId: string): Bytes {
  return fromHex(roundId, "round id").slice(0, 8);
}

/** What a RESULT signature covers; the signaling server checks the same bytes. */
export function resultPayload(roundId: string, result: Omit<Result, "type">): Bytes {
  const survivors = new Writer().u64(result.survivors).bytes();
  return concat(fromHex(roundId), result.modelDigest, survivors, result.tailDigest);
}

/** What the signature of a SUM covers, after its label. */
export async function sumPayload(t0: Bytes, t3: Bytes, chunk: number, packed: Bytes): Promise<Bytes> {
  return concat(t0, t3, new Writer().uint(chunk, 2).bytes(), await sha256(packed));
}

/** Label and payload of the signature that a message ends in. */
export function signedPart(message: Message, body: Bytes, roundId: string, t0: Bytes): readonly [string, Bytes] {
  if (message.type === "result") return [RESULT_LABEL, resultPayload(roundId, message)];
  if (!SIGNED.has(message.type)) throw new MessageError(`a ${message.type} carries no signature at its end`);
  return [`p2psa/1/${message.type}`, concat(t0, body)];
}

/** The codec of one attempt. It knows no chunks until `knowChunks`. */
export class Codec {
  private bounds: Bounds;

  constructor(
    private readonly parameters: RoundParameters,
    private readonly t0: Bytes,
  ) {
    this.bounds = { peers: parameters.size, tag: roundTag(parameters.setting.roundId), chunkBytes: null };
  }

  /** From now on chunk indexes, counts and sizes are those of this plan. */
  knowChunks(plan: ChunkPlan): void {
    const chunkBytes = Array.from({ length: plan.count }, (_, chunk) => {
      const [start, end] = plan.bounds(chunk);
      return this.parameters.packedBytes(end - start);
    });
    this.bounds = { ...this.bounds, chunkBytes };
  }

  /** A message of this peer, signed where its type is. */
  async encode(sender: number, message: Message, identity: Identity): Promise<Received> {
    const body = encodeBody(sender, message, this.bounds.tag);
    if (!SIGNED.has(message.type)) return { sender, message, signature: new Uint8Array(0), raw: body };
    const [label, payload] = signedPart(message, body, this.parameters.setting.roundId, this.t0);
    const signature = await identity.sign(label, payload);
    return { sender, message, signature, raw: concat(body, signature) };
  }

  /**
   * Parse a message and verify the signature it ends in.
   *
   * @throws MessageError wrong version, round, type, length, index or set, or the wrong class of link message.
   * @throws SignatureError it is not by its sender.
   * @throws LimitExceededError it is larger than any message of its class.
   */
  async decode(data: Bytes, bulk: boolean): Promise<Received> {
    const limit = bulk ? BULK_OVERHEAD_BYTES + this.parameters.maxChunkBytes : MAX_CONTROL_BYTES;
    if (data.length > limit) {
      throw new LimitExceededError(`round message of ${data.length} bytes, at most ${limit} are accepted`);
    }
    const received = parseMessage(data, this.bounds);
    if (BULK.has(received.message.type) !== bulk) {
      throw new MessageError(`a ${received.message.type} came as a ${bulk ? "bulk" : "control"} message`);
    }
    if (SIGNED.has(received.message.type)) await this.verifyEnd(received);
    return received;
  }

  /** Check the signature of one voter in a certificate. */
  async verifyVote(voter: number, vote: Vote, signature: Bytes): Promise<void> {
    const body = encodeBody(voter, vote, this.bounds.tag);
    await this.verifyEnd({ sender: voter, message: vote, signature, raw: concat(body, signature) });
  }

  /** Check the signature that a SUM carries. */
  async verifySum(sender: number, signature: Bytes, payload: Bytes): Promise<void> {
    await verify(this.identityOf(sender), SUM_LABEL, payload, signature);
  }

  private async verifyEnd(received: Received): Promise<void> {
    const body = received.raw.subarray(0, received.raw.length - SIGNATURE_BYTES);
    const [label, payload] = signedPart(received.message, body, this.parameters.setting.roundId, this.t0);
    await verify(this.identityOf(received.sender), label, payload, received.signature);
  }

  private identityOf(index: number): string {
    return this.parameters.setting.cohort[index] ?? "";
  }
}

