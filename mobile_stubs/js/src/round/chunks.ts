/** Commits and masked chunks held in one round (spec 07 §6, §7); a chunk counts once its commit vouches for it. */

import { type Bits, bitsOf, indexesOf } from "../protocol/bits.js";
import { type Bytes, equalBytes } from "../protocol/bytes.js";
import { sha256 } from "../protocol/crypto.js";
import { MessageError } from "../protocol/errors.js";
import type { ChunkPlan, RingBits } from "../secagg/parameters.js";
import type { Commit, Received } from "./messages.js";
import { sameBody } from "./same.js";

/** Keeps at most one commit per peer and, per chunk this peer may own, at most one contribution per peer. */
export class ChunkStore {
  private readonly commitments = new Map<number, Received<Commit>>();
  private readonly pending = new Map<number, Map<number, Bytes>>();
  private readonly contributed = new Map<number, Map<number, Bytes>>();
  private readonly owned = new Set<number>();
  private opened: { readonly plan: ChunkPlan; readonly t2: Bytes } | null = null;

  constructor(
    private readonly ringBits: RingBits,
    private readonly maxPendingPerPeer: number,
  ) {}

  /** Begin checking against a mask set; gives what was wrong with messages that came early. */
  async open(plan: ChunkPlan, t2: Bytes, owned: readonly number[]): Promise<MessageError[]> {
    this.opened = { plan, t2 };
    for (const chunk of owned) this.owned.add(chunk);
    const faults: MessageError[] = [];
    for (const [sender, received] of [...this.commitments]) {
      const fault = this.faultOf(received);
      if (fault === null) continue;
      this.commitments.delete(sender);
      faults.push(fault);
    }
    for (const sender of this.commitments.keys()) faults.push(...(await this.settle(sender)));
    return faults;
  }

  /** Become an owner of a chunk: contributions that came before this was known count now. */
  async own(chunk: number): Promise<MessageError[]> {
    this.owned.add(chunk);
    const faults: MessageError[] = [];
    for (const sender of this.pending.keys()) faults.push(...(await this.settle(sender)));
    return faults;
  }

  /** Peers whose commit is held. */
  get commits(): Bits {
    return bitsOf(this.commitments.keys());
  }

  /** The exact commit of a peer. */
  commitOf(peer: number): Received<Commit> | null {
    return this.commitments.get(peer) ?? null;
  }

  /** Peers whose contribution to a chunk is held and vouched for. */
  held(chunk: number): Bits {
    return bitsOf(this.contributed.get(chunk)?.keys() ?? []);
  }

  /** Packed contributions to a chunk, by peer index; all of them are held. */
  contributions(chunk: number, peers: Bits): Bytes[] {
    return indexesOf(peers).map((peer) => this.contributed.get(chunk)?.get(peer) as Bytes);
  }

  /**
   * Keep a commit; gives what was wrong with chunks that waited for it.
   *
   * @throws MessageError another commit of that peer is held, or it does not fit the mask set.
   */
  async addCommit(received: Received<Commit>): Promise<MessageError[]> {
    const known = this.commitments.get(received.sender);
    if (known !== undefined) {
      if (!sameBody(known, received)) throw new MessageError(`peer ${received.sender} sent two different commits`);
      return [];
    }
    const fault = this.faultOf(received);
    if (fault !== null) throw fault;
    this.commitments.set(received.sender, received);
    return this.settle(received.sender);
  }

  /**
   * Take another commit of a peer than the one held, and drop what only the old one vouched for.
   *
   * @throws MessageError it does not fit the mask set.
   */
  async replaceCommit(received: Received<Commit>): Promise<void> {
    const fault = this.faultOf(received);
    if (fault !== null) throw fault;
    this.commitments.set(received.sender, received);
    for (const [chunk, held] of this.contributed) {
      const packed = held.get(received.sender);
      const digest = received.message.digests[chunk];
      if (packed !== undefined && (digest === undefined || !equalBytes(await sha256(packed), digest))) {
        held.delete(received.sender);
      }
    }
  }

  /**
   * Keep a contribution; it waits where its commit is not here or this peer does not own the chunk yet.
   *
   * @throws MessageError wrong length or digest, or more chunks than one peer may leave waiting.
   */
  async addChunk(sender: number, chunk: number, packed: Bytes): Promise<void> {
    if (this.contributed.get(chunk)?.has(sender) === true) return;
    if (this.opened !== null && !this.opened.plan.peers.includes(sender)) {
      throw new MessageError(`peer ${sender} sent a chunk but is not in the mask set`);
    }
    if (this.opened !== null && this.commitments.has(sender) && this.owned.has(chunk)) {
      await this.accept(sender, chunk, packed);
      return;
    }
    const waiting = this.pending.get(sender) ?? new Map<number, Bytes>();
    this.pending.set(sender, waiting);
    if (waiting.size >= this.maxPendingPerPeer && !waiting.has(chunk)) {
      throw new MessageError(`peer ${sender} sent more than ${this.maxPendingPerPeer} chunks that cannot be checked yet`);
    }
    if (!waiting.has(chunk)) waiting.set(chunk, packed);
  }

  private faultOf(received: Received<Commit>): MessageError | null {
    if (this.opened === null) return null;
    const { plan, t2 } = this.opened;
    const { sender, message } = received;
    if (!plan.peers.includes(sender)) return new MessageError(`peer ${sender} committed but is not in the mask set`);
    if (!equalBytes(message.t2, t2)) return new MessageError(`peer ${sender} committed to another mask set`);
    if (message.digests.length === plan.count) return null;
    return new MessageError(`peer ${sender} committed to ${message.digests.length} chunks, expected ${plan.count}`);
  }

  private async settle(sender: number): Promise<MessageError[]> {
    const waiting = this.pending.get(sender);
    if (this.opened === null || waiting === undefined || !this.commitments.has(sender)) return [];
    const faults: MessageError[] = [];
    for (const [chunk, packed] of [...waiting]) {
      if (!this.owned.has(chunk)) continue;
      waiting.delete(chunk);
      try {
        await this.accept(sender, chunk, packed);
      } catch (error) {
        if (!(error instanceof MessageError)) throw error;
        faults.push(error);
      }
    }
    return faults;
  }

  private async accept(sender: number, chunk: number, packed: Bytes): Promise<void> {
    const digest = this.commitments.get(sender)?.message.digests[chunk];
    if (this.opened === null || digest === undefined) {
      throw new MessageError(`peer ${sender} sent chunk ${chunk}, which does not exist`);
    }
    const [start, end] = this.opened.plan.bounds(chunk);
    const expected = ((end - start) / 8) * this.ringBits;
    if (packed.length !== expected) {
      throw new MessageError(`chunk ${chunk} of peer ${sender} has ${packed.length} bytes, expected ${expected}`);
    }
    if (!equalBytes(await sha256(packed), digest)) {
      throw new MessageError(`chunk ${chunk} of peer ${sender} is not the one it committed to`);
    }
    const held = this.contributed.get(chunk) ?? new Map<number, Bytes>();
    held.set(sender, packed);
    this.contributed.set(chunk, held);
  }
}
