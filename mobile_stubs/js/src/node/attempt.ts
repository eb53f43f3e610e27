/**
 * One attempt at a round: drives the p2psa/1 machine over the mesh.
 *
 * The machine says what to do and in which order; a `persist` holds back everything after it until it is durable.
 */

import { type Bytes, fromHex } from "../protocol/bytes.js";
import { randomBytes } from "../protocol/crypto.js";
import { LimitExceededError, LinkError, RoundError } from "../protocol/errors.js";
import type { Identity, PeerId } from "../protocol/identity.js";
import { Kind } from "../protocol/link/framing.js";
import { initialMoments, type ServerOptimizer } from "../protocol/server-optimizer.js";
import type { Deadlines } from "../protocol/terms.js";
import type { Action, Completed, Failed, Outcome } from "../round/actions.js";
import { RoundMachine } from "../round/machine.js";
import { randomnessBytes } from "../round/state.js";
import { type Aggregate, applyAggregate, type Model, modelDigest, tailBytes } from "../secagg/apply.js";
import { type Contribution, type GroupSum, groupSum, groupSumDigest } from "../secagg/combining.js";
import type { RoundParameters } from "../secagg/parameters.js";
import type { Mesh } from "./mesh.js";

/** Messages of one peer that may wait to be read: a flood must not take memory without end. */
const MAX_PENDING = 512;
/** A bulk message counts as so many others. */
const BULK_WEIGHT = 16;

/** What others are told of it: ONNX Runtime's words hold numbers that an author's graph made of the owner's data. */
const UNTRAINED = "this node's training failed";

/** How an attempt ended on this peer. */
export interface AttemptReport {
  readonly outcome: Completed | Failed;
  /** What others may know of a failure. */
  readonly told: string | null;
  /** What broke the attempt off on this peer, where something of its own did. */
  readonly error: unknown;
  /** The next model, where the attempt completed. */
  readonly model: Model | null;
  /** The sum of this node's group, where one of many cohorts completed. */
  readonly total: GroupSum | null;
  readonly tail: Bytes;
  readonly milliseconds: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
}

/** What an attempt is made of. */
export interface AttemptNeeds {
  readonly round: number;
  /** Of the cohort, unlike that of any other of the run. */
  readonly name: string;
  /** The cohort's sum is one of several (spec 08): it is kept for a delegate to put in, not applied. */
  readonly isGroup: boolean;
  readonly parameters: RoundParameters;
  readonly identity: Identity;
  readonly mesh: Mesh;
  readonly deadlines: Deadlines;
  /** The model that enters the round, and what the aggregate is applied to it with. */
  readonly checkpoint: Model;
  readonly optimizer: ServerOptimizer;
  readonly parameterCount: number;
  /** Writes the journal; what it wrote outlives the process once it resolves. */
  readonly record: (entry: string, detail: string) => Promise<void>;
  /** Gives this peer's update, or its group's sum; begun at once, in parallel with linking and sharing. */
  readonly contribute: (signal: AbortSignal) => Promise<Contribution>;
  readonly onStage: (stage: string) => void;
  readonly onRefused: (peer: PeerId, reason: string) => void;
}

/** A peer's part in one attempt. Make it when the cohort is named, feed it messages, await `run`. */
export class Attempt {
  isEnded = false;
  private readonly indexes: ReadonlyMap<PeerId, number>;
  private readonly training = new AbortController();
  private readonly gone = new Map<PeerId, () => void>();
  private order: Promise<void> = Promise.resolve();
  private timer: ReturnType<typeof setTimeout> | null = null;
  private model: Model | null = null;
  private digest: string | null = null;
  private total: GroupSum | null = null;
  private tail: Bytes = new Uint8Array(0);
  private isClosed = false;
  private untrained: string | null = null;
  private broken: unknown = null;
  private readonly pending = new Map<PeerId, number>();
  private finish: (outcome: Completed | Failed) => void = () => {};
  private readonly ended = new Promise<Completed | Failed>((resolve) => (this.finish = resolve));

  private constructor(
    private readonly needs: AttemptNeeds,
    private readonly machine: RoundMachine,
  ) {
    const others = needs.parameters.setting.cohort.map((peer, index) => [peer, index] as const);
    this.indexes = new Map(others.filter(([peer]) => peer !== needs.identity.peerId));
  }

  /** @throws RoundError the identity is not in the cohort. */
  static async create(needs: AttemptNeeds): Promise<Attempt> {
    const { parameters, identity, mesh, deadlines } = needs;
    const randomness = randomBytes(randomnessBytes(parameters));
    const fingerprint = fromHex(mesh.fingerprint);
    return new Attempt(needs, await RoundMachine.create({ parameters, identity, fingerprint, deadlines, randomness }));
  }

  /** Of its cohort (`nameOf`). */
  get name(): string {
    return this.needs.name;
  }

  get round(): number {
    return this.needs.round;
  }

  get roundId(): string {
    return this.needs.parameters.setting.roundId;
  }

  /** Whether a model is this attempt's result. A round that begins with it says that the others have agreed. */
  ledTo(digest: string): boolean {
    return this.digest === digest;
  }

  /** Link, start and wait for the end; the attempt goes on answering others until `close`. */
  async run(): Promise<AttemptReport> {
    const begun = performance.now();
    const before = this.needs.mesh.total;
    void this.provideUpdate();
    await this.link();
    this.feed((now) => this.machine.start(now));
    const outcome = await this.ended;
    this.training.abort();
    const after = this.needs.mesh.total;
    return {
      outcome,
      told: outcome.action !== "failed" ? null : outcome.reason === this.untrained ? UNTRAINED : outcome.reason,
      error: this.broken,
      model: outcome.action === "completed" ? this.model : null,
      total: outcome.action === "completed" ? this.total : null,
      tail: this.tail,
      milliseconds: performance.now() - begun,
      bytesSent: after.sent - before.sent,
      bytesReceived: after.received - before.received,
    };
  }

  /** A round message came from a peer; it may be from outside the cohort. */
  receive(peer: PeerId, payload: Bytes, bulk: boolean): void {
    const index = this.indexes.get(peer);
    if (index === undefined) return;
    const weight = bulk ? BULK_WEIGHT : 1;
    const waiting = (this.pending.get(peer) ?? 0) + weight;
    if (waiting > MAX_PENDING) {
      this.needs.onRefused(peer, `${MAX_PENDING} messages of this peer wait to be read; one more is dropped`);
      return;
    }
    this.pending.set(peer, waiting);
    this.feed((now) => {
      this.pending.set(peer, (this.pending.get(peer) ?? weight) - weight);
      return this.machine.receive(index, payload, bulk, now);
    });
  }

  /** A link to a peer came or went. */
  linkChanged(peer: PeerId, up: boolean): void {
    const index = this.indexes.get(peer);
    if (index === undefined) return;
    const fingerprint = up ? this.needs.mesh.remoteFingerprint(peer) : null;
    if (fingerprint !== null) this.feed((now) => this.machine.linkUp(index, fromHex(fingerprint), now));
    else if (!up) this.feed((now) => this.machine.linkDown(index, now)); // else it went again: that has its own event
  }

  /** Signaling lost a member: do not wait for a first link to it. */
  peerGone(peer: PeerId): void {
    this.gone.get(peer)?.();
  }

  /** End the attempt from outside; others are told. */
  abort(reason: string): void {
    this.feed((now) => this.machine.fail(reason, now));
  }

  /** Stop answering; whatever is under way is dropped. */
  close(): void {
    this.isClosed = true;
    this.training.abort();
    if (this.timer !== null) clearTimeout(this.timer);
    this.end({ action: "failed", reason: "the node stopped" });
  }

  private async link(): Promise<void> {
    const one = async (peer: PeerId) => {
      const gone = new Promise<void>((resolve) => this.gone.set(peer, resolve));
      await Promise.race([this.needs.mesh.connect([peer], this.needs.deadlines.link_ms), gone]);
      this.linkChanged(peer, this.needs.mesh.linked.has(peer));
    };
    await Promise.all([...this.indexes.keys()].map(one));
  }

  private async provideUpdate(): Promise<void> {
    try {
      const update = await this.needs.contribute(this.training.signal);
      this.feed((now) => this.machine.provideUpdate(update, now));
    } catch (error) {
      if (this.training.signal.aborted) return;
      this.untrained = `local training failed: ${describe(error)}`;
      this.abort(this.untrained);
    }
  }

  /** Inputs are taken in order, each with everything it makes the machine do. */
  private feed(input: (now: number) => Promise<readonly Action[]>): void {
    this.order = this.order.then(async () => {
      if (this.isClosed) return;
      try {
        await this.carryOut(await input(this.needs.mesh.clock.now()));
        this.setTimer();
      } catch (error) {
        await this.breakOff(error);
      }
    });
  }

  /** What waited for a write that failed must never leave; the others need not wait for this peer. */
  private async breakOff(error: unknown): Promise<void> {
    const reason = describe(error);
    this.broken = error;
    for (const action of await this.machine.fail(reason, this.needs.mesh.clock.now())) {
      if (action.action === "send") this.send(action.to, action.data, action.bulk);
    }
    this.end({ action: "failed", reason });
  }

  private async carryOut(actions: readonly Action[]): Promise<void> {
    for (const action of actions) {
      if (this.isClosed) return;
      switch (action.action) {
        case "send":
          this.send(action.to, action.data, action.bulk);
          break;
        case "persist":
          await this.needs.record(action.entry, action.detail);
          break;
        case "work":
          void this.work(action.number, action.job);
          break;
        case "revealed":
          await (this.needs.isGroup ? this.takeSum(action.aggregate) : this.apply(action.aggregate));
          break;
        case "stage":
          this.needs.onStage(action.stage);
          break;
        case "misbehaviour":
          this.needs.onRefused(this.peerOf(action.peer), action.reason);
          break;
        case "completed":
        case "failed":
          this.end(action);
      }
    }
  }

  private send(to: number, data: Bytes, bulk: boolean): void {
    const peer = this.peerOf(to);
    try {
      this.needs.mesh.send(peer, bulk ? Kind.BULK : Kind.CONTROL, data);
    } catch (error) {
      if (error instanceof LimitExceededError) {
        this.needs.onRefused(peer, error.message);
        this.linkChanged(peer, false);
      } else if (!(error instanceof LinkError)) throw error;
      // the link's end has its own event, and the machine sends again when the link is back
    }
  }

  private async work(number: number, job: () => Promise<unknown>): Promise<void> {
    let outcome: Outcome;
    try {
      outcome = { value: await job() };
    } catch (error) {
      outcome = { error: error instanceof RoundError ? error : new RoundError(describe(error)) };
    }
    this.feed((now) => this.machine.finishWork(number, outcome, now));
  }

  /** P + B: the model without moments. */
  private get modelLength(): number {
    const { checkpoint, optimizer, parameterCount } = this.needs;
    return checkpoint.length - initialMoments(optimizer).length * parameterCount;
  }

  /** Among many cohorts, the sum is the result: nothing of one group is applied, and its metrics stay in it. */
  private async takeSum(aggregate: Aggregate): Promise<void> {
    const total = groupSum(aggregate, this.needs.parameters, this.modelLength);
    this.total = total;
    const digest = await groupSumDigest(total);
    this.feed((now) => this.machine.provideResult(digest, this.tail, now));
  }

  private async apply(aggregate: Aggregate): Promise<void> {
    const { checkpoint, optimizer, parameterCount, parameters } = this.needs;
    const { clip } = parameters.setting;
    try {
      const applying = { clip, largestValue: parameters.largestContribution, optimizer, parameterCount };
      const model = applyAggregate(checkpoint, aggregate, applying);
      this.model = model;
      this.tail = tailBytes(aggregate, this.modelLength);
      const [digest, tail] = [await modelDigest(model), this.tail];
      this.digest = digest;
      this.feed((now) => this.machine.provideResult(digest, tail, now));
    } catch (error) {
      if (!(error instanceof RoundError)) throw error;
      this.abort(error.message);
    }
  }

  private setTimer(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    const due = this.machine.nextDeadline();
    if (due === null || this.isClosed) return;
    this.timer = setTimeout(() => this.feed((now) => this.machine.tick(now)), Math.max(0, due - this.needs.mesh.clock.now()));
  }

  private end(outcome: Completed | Failed): void {
    this.isEnded = true;
    this.finish(outcome);
  }

  private peerOf(index: number): PeerId {
    return this.needs.parameters.setting.cohort[index] ?? "";
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}
