/** R2 and the first half of R3 (spec 07 §6, §7): masked chunks and commits go out, owners report what they hold. */

import { type Bits, bitsOf, count, has, indexesOf, NONE } from "../protocol/bits.js";
import { type Bytes, toHex } from "../protocol/bytes.js";
import { MessageError, RoundFailedError } from "../protocol/errors.js";
import { type Contribution, contributionLength, GroupSum } from "../secagg/combining.js";
import type { MaskedUpdate } from "../secagg/masking.js";
import { commitRoot } from "../secagg/parameters.js";
import type { Advertising } from "./advertising.js";
import { ChunkStore } from "./chunks.js";
import { maskJob } from "./jobs.js";
import { chooseSurvivors, type Holdings, nextOwner } from "./leading.js";
import type { Assign, Chunk, Commit, Have, Received } from "./messages.js";
import { agreed, type RoundState } from "./state.js";
import type { Views } from "./views.js";

const MAX_PENDING_CHUNKS = 4;
/** Owners that one chunk may get after its first ones: a leader must not have everything sent to everybody. */
const MAX_BACKUPS = 2;

/** This peer's masked update, the chunks it owns, and the leader's view of who holds what. */
export class Collecting {
  readonly store: ChunkStore;
  readonly owners = new Map<number, readonly number[]>();
  update: Contribution | null = null;
  private masked: MaskedUpdate | null = null;
  private isMasking = false;
  private readonly haves = new Map<number, Holdings>();
  private readonly awaited = new Set<number>();
  private assigns: { readonly sender: number; readonly assign: Assign }[] = [];

  constructor(
    private readonly state: RoundState,
    private readonly views: Views,
    private readonly advertising: Advertising,
  ) {
    this.store = new ChunkStore(state.parameters.ringBits, MAX_PENDING_CHUNKS);
  }

  /** Cut the vector for the adopted mask set and check what came early. */
  async begin(): Promise<void> {
    const plan = this.state.chunkPlan();
    for (let chunk = 0; chunk < plan.count; chunk++) this.owners.set(chunk, plan.owners(chunk));
    const t2 = agreed(this.state.t2, "mask set");
    this.reportAll(this.state.ownIndex, await this.store.open(plan, t2, this.ownedChunks()));
  }

  /**
   * Keep a commit; `isAnswer` says that this peer asked for it because its own copies give another root.
   *
   * @throws MessageError it does not fit, or contradicts an earlier one that was not asked about.
   */
  async keepCommit(received: Received<Commit>, isAnswer: boolean): Promise<void> {
    const known = this.store.commitOf(received.sender);
    if (isAnswer && known !== null && received.sender !== this.state.ownIndex) await this.store.replaceCommit(received);
    else this.reportAll(received.sender, await this.store.addCommit(received));
  }

  /**
   * Keep a contribution.
   *
   * @throws MessageError it does not fit its commit, or too many wait.
   */
  async keepChunk(received: Received<Chunk>): Promise<void> {
    await this.store.addChunk(received.sender, received.message.chunk, received.message.packed);
  }

  /** Add to what a peer says it holds; it never holds less than it once did. */
  keepHave(received: Received<Have>): void {
    const known = this.haves.get(received.sender);
    this.awaited.delete(received.sender);
    const chunks = new Map(known?.chunks);
    for (const [chunk, held] of received.message.chunks) chunks.set(chunk, (chunks.get(chunk) ?? NONE) | held);
    this.haves.set(received.sender, { commits: received.message.commits | (known?.commits ?? NONE), chunks });
  }

  /**
   * A leader gives a chunk to a backup owner; it waits while its view or the mask set is not known.
   *
   * @throws MessageError the sender does not lead that view, or assigns more than chunks can need.
   */
  keepAssignment(received: Received<Assign>): void {
    const { sender, message: assign } = received;
    if (sender !== this.views.leaderOf(assign.view)) {
      throw new MessageError(`peer ${sender} assigned a chunk in view ${assign.view} but does not lead it`);
    }
    const kept = this.assigns.filter((waiting) => waiting.sender === sender).length;
    if (kept >= MAX_BACKUPS * this.state.parameters.size) {
      throw new MessageError(`peer ${sender} assigned more chunks than there are`);
    }
    this.assigns.push({ sender, assign });
  }

  /** Follow the assignments whose view is reached: send the same bytes again to the new owner. */
  async takeAssignments(): Promise<void> {
    const waiting = this.assigns;
    this.assigns = [];
    for (const item of waiting) {
      const { view, chunk, owner } = item.assign;
      if (this.state.plan === null || view > this.views.view) this.assigns.push(item);
      else if (chunk < this.state.plan.count && has(this.state.maskSet, owner)) await this.addOwner(chunk, owner);
    }
  }

  /**
   * Mask the update, or the sum of this delegate's group, once it is here.
   *
   * @throws RoundFailedError it has another length than the round's vector, or is an update where sums are combined, or
   * the reverse.
   */
  startMasking(): void {
    const { state, update } = this;
    if (update === null || this.isMasking || !state.isIn(state.maskSet)) return;
    this.update = null;
    this.isMasking = true;
    const expected = state.parameters.setting.vectorLength;
    if (contributionLength(update) !== expected) {
      throw new RoundFailedError(`the update has ${contributionLength(update)} coordinates, expected ${expected}`);
    }
    if (update instanceof GroupSum !== state.parameters.combines) {
      const kinds = ["an update", "the sum of a group"];
      const [got, wanted] = state.parameters.combines ? kinds : kinds.reverse();
      throw new RoundFailedError(`${got} was handed in, this cohort sums ${wanted} of each peer`);
    }
    const others = indexesOf(state.others(state.maskSet));
    const input = {
      parameters: state.parameters,
      plan: state.chunkPlan(),
      ownIndex: state.ownIndex,
      selfMaskSeed: state.secrets.selfMaskSeed.slice(),
      shared: new Map(others.map((peer) => [peer, this.advertising.maskSecret(peer)])),
      t1: agreed(state.t1, "roster"),
      update,
      rounding: state.rounding,
    };
    state.beginWork(
      () => maskJob(input),
      (masked) => this.sendMasked(masked),
    );
  }

  /** Tell the leader what is held: once it is all that can come, and from the deadline on at every change. */
  async report(): Promise<void> {
    const { state, store } = this;
    const owned = this.ownedChunks();
    const expected = state.live(state.maskSet);
    const isComplete =
      (expected & ~store.commits) === NONE && owned.every((chunk) => (expected & ~store.held(chunk)) === NONE);
    if (!state.isIn(state.maskSet) || !(isComplete || state.isOverdue())) return;
    const chunks = owned.map((chunk) => [chunk, store.held(chunk)] as const);
    await this.views.tellLeader({ type: "have", view: this.views.view, commits: store.commits, chunks });
  }

  /** As leader: a survivor set, once all live peers reported; chunks without an owner go to backups first. */
  async propose(): Promise<Bits | null> {
    const { state, store } = this;
    const heard = bitsOf(this.haves.keys()) & ~bitsOf(this.awaited);
    const isWaiting = (state.live(state.maskSet) & ~heard) !== NONE;
    if (isWaiting && !state.isOverdue(1)) return null; // at the deadline everyone reports, so wait a grace longer
    if (count(store.commits) < state.parameters.quorum) return state.isOverdue(1) ? store.commits : null;
    const present = state.live(bitsOf(this.haves.keys()));
    if (await this.assign(this.unheld(present), present)) return null;
    const owners = new Map([...this.owners].map(([c, list]) => [c, list.filter((owner) => has(present, owner))]));
    const survivors = chooseSurvivors(store.commits, this.haves, state.chunkPlan(), owners);
    // resends to backup owners may still be on their way
    if (!state.parameters.isLargeEnough(survivors) && !state.isOverdue(1)) return null;
    await this.forwardCommits(survivors);
    return survivors;
  }

  /** As leader: give chunks to backup owners; false where nobody is left to take one. */
  async assign(chunks: Iterable<number>, present: Bits): Promise<boolean> {
    const { state } = this;
    let isGiven = false;
    for (const chunk of chunks) {
      const owner = nextOwner(state.chunkPlan(), this.ownersOf(chunk), present);
      if (owner === null || !this.mayAddOwner(chunk)) continue;
      this.awaited.add(owner); // wait for its new report
      await state.post.broadcast({ type: "assign", view: this.views.view, chunk, owner }, { toSelf: false });
      await this.addOwner(chunk, owner);
      isGiven = true;
    }
    if (isGiven) state.stageDeadline = state.now + state.grace;
    return isGiven;
  }

  /** Digest of the survivors' commits; null where one is missing. */
  async root(survivors: Bits): Promise<Bytes | null> {
    const commits: (readonly [number, Bytes])[] = [];
    for (const peer of indexesOf(survivors)) {
      const commit = this.store.commitOf(peer);
      if (commit === null) return null;
      commits.push([peer, commit.raw]);
    }
    return commitRoot(agreed(this.state.t2, "mask set"), commits);
  }

  /** Owners of a chunk, backups included. */
  ownersOf(chunk: number): readonly number[] {
    return this.owners.get(chunk) ?? [];
  }

  /** Chunks that this peer owns, backups included. */
  ownedChunks(): number[] {
    return [...this.owners].filter(([, owners]) => owners.includes(this.state.ownIndex)).map(([chunk]) => chunk);
  }

  /** Chunks without a live owner, or whose owners claim so few contributions that no survivor set is left. */
  private unheld(present: Bits): number[] {
    const { quorum } = this.state.parameters;
    return [...this.owners]
      .filter(([chunk, owners]) => {
        const live = owners.filter((owner) => has(present, owner));
        const held = live.map((owner) => (this.haves.get(owner)?.chunks.get(chunk) ?? NONE) & this.store.commits);
        return live.length === 0 || Math.max(...held.map(count)) < quorum;
      })
      .map(([chunk]) => chunk);
  }

  private async forwardCommits(survivors: Bits): Promise<void> {
    for (const [peer, have] of this.haves) {
      if (peer === this.state.ownIndex) continue;
      for (const absent of indexesOf(survivors & ~have.commits)) {
        const commit = this.store.commitOf(absent);
        if (commit !== null) await this.state.post.send(peer, { type: "forward", message: commit.raw });
      }
    }
  }

  private async sendMasked(masked: MaskedUpdate): Promise<void> {
    if (!this.isWanted()) return; // this peer is out of the survivor set already: its update is thrown away
    const t2 = agreed(this.state.t2, "mask set");
    this.masked = masked;
    this.state.post.persist("committed", toHex(t2));
    await this.state.post.broadcast({ type: "commit", t2, digests: masked.digests });
    for (const [chunk, owners] of this.owners) {
      for (const owner of owners) await this.sendChunk(owner, chunk, masked);
    }
  }

  private isWanted(): boolean {
    if (this.state.survivors !== NONE) return this.state.isIn(this.state.survivors);
    return this.views.voteIncludes(this.state.ownIndex);
  }

  private mayAddOwner(chunk: number): boolean {
    return this.ownersOf(chunk).length < this.state.parameters.setting.replicas + MAX_BACKUPS;
  }

  private async addOwner(chunk: number, owner: number): Promise<void> {
    // leaders of different views may together assign more backups than one of them would
    if (this.ownersOf(chunk).includes(owner) || !this.mayAddOwner(chunk)) return;
    this.owners.set(chunk, [...this.ownersOf(chunk), owner]);
    this.state.changes++;
    if (owner === this.state.ownIndex) this.reportAll(owner, await this.store.own(chunk));
    if (this.masked !== null && this.isWanted()) await this.sendChunk(owner, chunk, this.masked);
  }

  private async sendChunk(owner: number, chunk: number, masked: MaskedUpdate): Promise<void> {
    const packed = agreed(masked.chunks[chunk], `chunk ${chunk}`);
    if (owner === this.state.ownIndex) await this.store.addChunk(owner, chunk, packed);
    else await this.state.post.send(owner, { type: "chunk", chunk, packed });
  }

  private reportAll(peer: number, faults: readonly MessageError[]): void {
    for (const fault of faults) this.state.post.report(peer, fault.message);
  }
}
