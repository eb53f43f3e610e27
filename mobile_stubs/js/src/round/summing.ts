/** R5 (spec 07 §9): owners' sums, chunks that are rescued or lost, and the aggregate. */

import { type Bits, bitsOf, has, indexesOf, isWithin, NONE } from "../protocol/bits.js";
import { type Bytes, equalBytes } from "../protocol/bytes.js";
import { MessageError, ProtocolError, RoundFailedError } from "../protocol/errors.js";
import type { Identity } from "../protocol/identity.js";
import type { Advertising } from "./advertising.js";
import { SUM_LABEL, sumPayload } from "./codec.js";
import type { Collecting } from "./collecting.js";
import { sumJob, unpackJob } from "./jobs.js";
import { Asked, type Decide, type Received, type Sum } from "./messages.js";
import type { Requests } from "./requests.js";
import type { SeedBook } from "./seeds.js";
import { agreed, type RoundState, Stage } from "./state.js";

const MAX_EARLY_SUMS = 4;
/**
 * Times the first leader tries to have a missing chunk summed again before it is lost. A later one tries once: others wait
 * two graces for it, of which the first half passes before it may act and each try takes one.
 */
const MAX_RESCUES = 2;

/** The chunk sums of one attempt. */
export class Summing {
  private early = new Map<number, Map<number, Received<Sum>>>();
  private readonly sums = new Map<number, Received<Sum>>();
  private readonly started = new Set<number>();
  private readonly rescues = new Map<number, number>();
  private lost: Bits = NONE;

  constructor(
    private readonly state: RoundState,
    private readonly advertising: Advertising,
    private readonly collecting: Collecting,
    private readonly requests: Requests,
  ) {}

  /**
   * Check a sum and keep it; a few of each peer wait for the certificate or for word that it owns the chunk.
   *
   * @throws ProtocolError of wrong length, wrongly signed, or too many wait.
   * @throws RoundFailedError two owners signed different sums.
   */
  async keep(received: Received<Sum>): Promise<void> {
    const { sender, message: total } = received;
    if (this.state.t3 === null || !this.collecting.ownersOf(total.chunk).includes(sender)) {
      this.keepEarly(received);
      return;
    }
    const known = this.sums.get(total.chunk);
    if (known !== undefined && equalBytes(known.raw, received.raw)) return;
    await this.check(sender, total); // this peer's own too: anybody may pass a sum on in anybody's name
    if (known === undefined) await this.accept(received);
    else if (!equalBytes(known.message.packed, total.packed)) {
      throw new RoundFailedError(
        `peers ${known.sender} and ${sender} signed different sums of chunk ${total.chunk}`,
      );
    }
  }

  /** Look again at the sums that wait. */
  async takeEarly(): Promise<void> {
    const early = this.early;
    this.early = new Map();
    for (const waiting of early.values()) {
      for (const received of waiting.values()) {
        try {
          await this.keep(received);
        } catch (error) {
          if (error instanceof RoundFailedError || !(error instanceof ProtocolError)) throw error;
          this.state.post.report(received.sender, error.message);
        }
      }
    }
  }

  /** Begin to sum every chunk that this peer owns and holds all contributions to. */
  sumOwned(book: SeedBook): void {
    for (const chunk of this.collecting.ownedChunks()) {
      const isComplete = isWithin(this.state.survivors, this.collecting.store.held(chunk));
      if (this.started.has(chunk) || !isComplete) continue;
      this.started.add(chunk);
      const input = this.inputOf(chunk, book);
      this.state.beginWork(
        () => sumJob(input),
        (packed) => this.send(chunk, packed),
      );
    }
  }

  /** Chunks neither summed nor given up. */
  absent(): number[] {
    const chunks = Array.from({ length: this.state.chunkPlan().count }, (_, chunk) => chunk);
    return chunks.filter((chunk) => !this.sums.has(chunk) && !has(this.lost, chunk));
  }

  /** The sum of a chunk as its owner signed it. */
  forwardable(chunk: number): Received | null {
    return this.sums.get(chunk) ?? null;
  }

  /** Ask so many of those who hold every sum that one of them is honest: an owner may have sent its own to some. */
  async ask(absent: readonly number[], finished: readonly number[]): Promise<void> {
    const { state } = this;
    const enough = state.parameters.size - state.parameters.threshold + 1;
    for (const index of finished.filter((peer) => state.isLive(peer)).slice(0, enough)) {
      await this.requests.need(index, Asked.SUMS, bitsOf(absent));
    }
  }

  /** All chunks are summed or lost: put the aggregate together. */
  finish(): void {
    const { state } = this;
    const payloads = new Map<number, Bytes>();
    for (const [chunk, { message }] of this.sums) if (!has(this.lost, chunk)) payloads.set(chunk, message.packed);
    const [parameters, plan, survivors] = [state.parameters, state.chunkPlan(), state.survivors];
    state.enter(Stage.AGREE, state.options.deadlines.sum_ms);
    state.beginWork(
      async () => unpackJob(parameters, plan, payloads, survivors),
      async (aggregate) => void state.post.actions.push({ action: "revealed", aggregate }),
    );
  }

  /**
   * Whether to give chunks up: only after this peer's own deadline, or once their owners are gone.
   *
   * @throws MessageError it names no chunk, or one that does not exist.
   */
  judgeLost(decided: Decide, sender: number): boolean {
    const { state } = this;
    const chunks = indexesOf(decided.members);
    if (chunks.length === 0 || chunks.some((chunk) => chunk >= state.chunkPlan().count)) {
      throw new MessageError(`peer ${sender} decided on lost chunks ${chunks.join(", ")} that do not exist`);
    }
    const areGone = chunks.every((chunk) => state.live(bitsOf(this.collecting.ownersOf(chunk))) === NONE);
    return areGone || state.isOverdue() || sender === state.ownIndex;
  }

  /** Lost chunks count as zero, also where a sum of them came in the meantime: everybody must agree. */
  giveUp(decided: Decide): void {
    if (this.lost !== NONE) return;
    this.lost = decided.members;
    this.state.changes++;
  }

  /** As leader: have stalled chunks sent again and summed by backups; gives those that nobody can sum. */
  async rescue(absent: readonly number[], view: number): Promise<Bits | null> {
    const { state } = this;
    const most = view === 0 ? MAX_RESCUES : 1;
    const live = state.live(state.maskSet);
    const isOwned = (chunk: number) => (live & bitsOf(this.collecting.ownersOf(chunk))) !== NONE;
    const stalled = absent.filter((chunk) => state.isOverdue() || !isOwned(chunk));
    const tries = (chunk: number) => this.rescues.get(chunk) ?? 0;
    const again = stalled.filter((c) => tries(c) === 0 || (tries(c) < most && state.isOverdue()));
    if (again.length === 0) return stalled.length > 0 && state.isOverdue() ? bitsOf(stalled) : null;
    for (const chunk of again) this.rescues.set(chunk, tries(chunk) + 1);
    for (const index of indexesOf(state.others(state.live(state.roster)))) {
      await this.requests.need(index, Asked.SUMS, bitsOf(again));
    }
    // without a survivor, its contribution is missing for good
    if (isWithin(state.survivors, live)) await this.collecting.assign(again, live);
    state.stageDeadline = state.now + state.grace;
    state.changes++;
    return null;
  }

  private keepEarly(received: Received<Sum>): void {
    const { sender, message } = received;
    const waiting = this.early.get(sender) ?? new Map<number, Received<Sum>>();
    this.early.set(sender, waiting);
    if (waiting.size >= MAX_EARLY_SUMS && !waiting.has(message.chunk)) {
      throw new MessageError(
        `peer ${sender} sent more than ${MAX_EARLY_SUMS} sums of chunks that it does not own yet`,
      );
    }
    if (!waiting.has(message.chunk)) waiting.set(message.chunk, received);
  }

  private inputOf(chunk: number, book: SeedBook) {
    const { state } = this;
    const survivors = indexesOf(state.survivors);
    const dropouts = indexesOf(state.maskSet & ~state.survivors);
    return {
      parameters: state.parameters,
      start: state.chunkPlan().bounds(chunk)[0],
      contributions: this.collecting.store.contributions(chunk, state.survivors),
      t1: agreed(state.t1, "roster"),
      seeds: new Map(survivors.map((peer) => [peer, book.secret(peer)])),
      maskPrivates: new Map(dropouts.map((peer) => [peer, book.secret(peer)])),
      maskPublics: new Map(survivors.map((peer) => [peer, this.advertising.advert(peer).maskPublic])),
    };
  }

  private async send(chunk: number, packed: Bytes): Promise<void> {
    const identity: Identity = this.state.options.identity;
    const signature = await identity.sign(SUM_LABEL, await this.payload(chunk, packed));
    await this.state.post.broadcast({ type: "sum", chunk, signature, packed });
  }

  private payload(chunk: number, packed: Bytes): Promise<Bytes> {
    return sumPayload(this.state.t0, agreed(this.state.t3, "survivor set"), chunk, packed);
  }

  private async check(sender: number, total: Sum): Promise<void> {
    const { state } = this;
    const [start, end] = state.chunkPlan().bounds(total.chunk);
    const expected = state.parameters.packedBytes(end - start);
    if (total.packed.length !== expected) {
      throw new MessageError(`sum of chunk ${total.chunk} has ${total.packed.length} bytes, expected ${expected}`);
    }
    await state.post.codec.verifySum(sender, total.signature, await this.payload(total.chunk, total.packed));
  }

  private async accept(received: Received<Sum>): Promise<void> {
    const { chunk } = received.message;
    this.sums.set(chunk, received);
    this.state.changes++;
    // this peer leads and had it looked for: others may miss it too
    if (this.rescues.has(chunk)) await this.state.post.relayAll(received.raw, true, received.sender);
  }
}
