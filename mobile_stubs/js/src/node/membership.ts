/** A node's part in one run: the model it holds, and what it checks before it takes part in a round (spec 06 §3). */

import type { Plan } from "../plans/plan.js";
import { type Bytes, short } from "../protocol/bytes.js";
import { checkOwnGroup } from "../protocol/cohorts.js";
import { ProtocolError } from "../protocol/errors.js";
import type { PeerId } from "../protocol/identity.js";
import { initialMoments } from "../protocol/server-optimizer.js";
import type { LogEntry, ServerMessages } from "../protocol/signaling/messages.js";
import { tailLength } from "../protocol/tail.js";
import { COMBINING_RING_BITS, type RunTerms } from "../protocol/terms.js";
import { BULK_OVERHEAD_BYTES } from "../round/codec.js";
import { type Model, modelBytes, modelDigest, modelFrom } from "../secagg/apply.js";
import type { LocalUpdate } from "../secagg/quantise.js";
import { type Contribution, type GroupSum, MIN_DELEGATES } from "../secagg/combining.js";
import { RoundParameters } from "../secagg/parameters.js";
import {
  checkAnnouncement,
  delegateParameters,
  type HeldSum,
  nameOf,
  type OwnGroup,
  rivalRoundIds,
} from "./announcement.js";
import type { Attempt } from "./attempt.js";
import type { Storage } from "./platform.js";
import type { Trainer } from "./trainer.js";

type RoundStart = ServerMessages["round_start"];
type Progress = (done: number, total: number) => void;

const MAX_ABORTED = 16;

/** A run as its author signed it. */
export interface SignedRun {
  readonly run: string;
  readonly author: PeerId;
  readonly terms: RunTerms;
}

/** One run this node takes part in. `round` counts the rounds whose result `model` is. */
export class Membership {
  /** The current attempt and the one before, which others may still ask. */
  readonly attempts: Attempt[] = [];
  /** Whether signaling said that the run is over. */
  hasEnded = false;
  private readonly aborted: string[] = [];
  private start: RoundStart | null = null;
  private held: HeldSum | null = null;
  /** Groups that this node joined at its latest round, one for each attempt. */
  private ownGroups: OwnGroup[] = [];
  private training: Promise<unknown> = Promise.resolve();

  private constructor(
    readonly signed: SignedRun,
    readonly plan: Plan,
    readonly trainer: Trainer,
    private readonly own: PeerId,
    private readonly storage: Storage,
    public round: number,
    /** The highest round this node ever held the result of; signaling cannot have an earlier one repeated. */
    private reached: number,
    public model: Model,
    public digest: string,
  ) {}

  /** Begin with the newest checkpoint in storage, or with the plan's initial values. */
  static async restore(
    signed: SignedRun,
    plan: Plan,
    trainer: Trainer,
    own: PeerId,
    storage: Storage,
  ): Promise<Membership> {
    const found = await storage.loadCheckpoint(signed.run);
    const start = initialModel(signed, plan);
    const kept = found !== null && found.model.length === start.byteLength ? found : null;
    const model = kept === null ? start : modelFrom(kept.model);
    if (kept?.local.length === trainer.local.byteLength) trainer.local = trainer.trained = modelFrom(kept.local);
    const [round, reached] = [kept?.round ?? 0, kept?.reached ?? 0];
    return new Membership(signed, plan, trainer, own, storage, round, reached, model, await modelDigest(model));
  }

  /** Whether an attempt is under way. */
  get isAtWork(): boolean {
    return this.attempts[0]?.isEnded === false;
  }

  /** Digest of the model the run starts from. */
  initialDigest(): Promise<string> {
    return modelDigest(initialModel(this.signed, this.plan));
  }

  /** What is trained in common: shared parameters and buffers, without the server optimizer's moments. */
  get fit(): Model {
    return this.model.slice(0, this.plan.modelLength);
  }

  /** Bytes of the model on the wire. */
  get modelBytes(): number {
    return this.model.byteLength;
  }

  /** Bytes of the largest bulk message this run's rounds may bring. */
  get bulkLimit(): number {
    const { cohorts, min_survivors, ring_bits } = this.signed.terms;
    const ofPeers = this.chunkBytes(min_survivors, ring_bits);
    const ofDelegates = cohorts > 1 ? this.chunkBytes(MIN_DELEGATES, COMBINING_RING_BITS) : 0;
    return BULK_OVERHEAD_BYTES + Math.max(ofPeers, ofDelegates);
  }

  private chunkBytes(owners: number, ringBits: number): number {
    return Math.ceil(this.vectorLength / (8 * owners)) * ringBits;
  }

  private get vectorLength(): number {
    return this.plan.modelLength + tailLength(this.plan.manifest, this.signed.terms);
  }

  /**
   * This is the model after `round` rounds, and what this peer last trained of its own goes with it. Both are stored
   * before this resolves.
   */
  async hold(round: number, model: Model): Promise<void> {
    const { trainer } = this;
    const digest = await modelDigest(model);
    const reached = Math.max(this.reached, round);
    const local = round > this.round ? trainer.trained : trainer.local;
    const checkpoint = { round, reached, digest, model: modelBytes(model), local: modelBytes(local) };
    await this.storage.saveCheckpoint(this.signed.run, checkpoint);
    trainer.local = local;
    this.round = round;
    this.reached = reached;
    this.model = model;
    this.digest = digest;
    this.ownGroups = this.ownGroups.filter((group) => group.round >= round);
  }

  /** The bytes of a model, where this node holds the one that is asked for. */
  lookup(round: number, digest: string): Bytes | null {
    return this.round === round && this.digest === digest ? modelBytes(this.model) : null;
  }

  /** Its author and, where the author lists members, those alone; else whoever signaling introduced. */
  mayFetch(peer: PeerId): boolean {
    const { terms, author } = this.signed;
    return terms.members.length === 0 || terms.members.includes(peer) || peer === author;
  }

  /**
   * Check that a round is none that this node has left behind (spec 06 §3).
   *
   * The last one may come again: its result may not have reached signaling.
   *
   * @throws ProtocolError a later round is finished here.
   */
  checkRound(round: number): void {
    if (round >= this.reached) return;
    throw new ProtocolError(
      `run ${short(this.signed.run)}: signaling goes back to round ${round}, this node finished ${this.reached}`,
    );
  }

  /**
   * The parameters of an announced attempt, after checking the announcement against what this node holds.
   *
   * @throws ProtocolError another round, model or id than this node holds, or a cohort the terms do not allow.
   */
  async parameters(start: RoundStart): Promise<RoundParameters> {
    const { run, terms } = this.signed;
    const what = `run ${short(run)}`;
    const cohort = await checkAnnouncement(start, terms, this.own);
    this.checkRound(start.round);
    if (start.round !== this.round + 1 || start.model_digest !== this.digest) {
      throw new ProtocolError(
        `${what}: signaling names round ${start.round} with model ${short(start.model_digest)}, ` +
          `this node holds round ${this.round} with model ${short(this.digest)}`,
      );
    }
    if (this.aborted.includes(nameOf(start))) {
      throw new ProtocolError(`${what}: attempt ${start.attempt} at round ${start.round} is closed already`);
    }
    for (const rival of await rivalRoundIds(start, terms)) {
      if (!(await this.storage.joined(rival))) continue;
      throw new ProtocolError(
        `${what}: this node joined round id ${short(rival)} before, ` +
          `attempt ${start.attempt} at round ${start.round} allows no second cohort`,
      );
    }
    if (start.combining !== null) return delegateParameters(start, this.held, this.own, terms);
    return new RoundParameters({
      runId: run,
      roundId: start.round_id,
      planDigest: this.plan.digest,
      modelDigest: this.digest,
      cohort,
      minSurvivors: terms.min_survivors,
      ringBits: terms.ring_bits,
      valueBits: terms.value_bits,
      replicas: terms.replicas,
      vectorLength: this.vectorLength,
      clip: terms.clip,
    });
  }

  /** What this peer puts into an attempt: the sum it holds, once and for that attempt alone, or its update. */
  contribution(parameters: RoundParameters, onProgress: Progress): (signal: AbortSignal) => Promise<Contribution> {
    const { held } = this;
    this.held = null;
    if (!parameters.combines || held === null) return this.train(parameters.setting.roundId, onProgress);
    return () => Promise.resolve(held.total);
  }

  /** Keep the sum of this node's group for the case that it is named as a delegate. */
  holdSum(start: RoundStart, total: GroupSum): void {
    const group = this.ownGroupAt(start);
    if (group !== undefined) this.held = { ...group, total };
  }

  private ownGroupAt({ round, attempt }: { readonly round: number; readonly attempt: number }): OwnGroup | undefined {
    return this.ownGroups.find((group) => group.round === round && group.attempt === attempt);
  }

  /** Whether a cohort is the next level of the attempt that this node works on. */
  goesOnWith(start: RoundStart): boolean {
    const { start: now } = this;
    const isNext = now !== null && start.combining !== null && now.combining === null;
    return isNext && now.round === start.round && now.attempt === start.attempt;
  }

  /**
   * Check a logged round against this node's own part in it, where it had one.
   *
   * @throws ProtocolError others spoke for its group than members of it.
   */
  checkDelegates(entry: LogEntry): void {
    const { cohort, combining } = entry;
    const ownGroup = this.ownGroupAt(entry);
    if (ownGroup === undefined) return;
    if (combining === null) throw new ProtocolError(`round ${entry.round}: this node was in a group, but none is logged`);
    checkOwnGroup({ cohort, sources: combining.sources }, ownGroup.group, ownGroup.parameters.setting.cohort);
  }

  /** This peer's update from the model it holds now; one training at a time. */
  private train(roundId: string, onProgress: Progress): (signal: AbortSignal) => Promise<LocalUpdate> {
    const checkpoint = this.fit;
    return (signal) => {
      // the stretch of steps of an attempt that was called off may not be over yet
      const turn = this.training.then(() => this.trainer.update(checkpoint, roundId, signal, onProgress));
      this.training = turn.catch(() => undefined);
      return turn;
    };
  }

  /** Let go of all but the newest attempt, and take a new one. */
  begin(attempt: Attempt, start: RoundStart, parameters: RoundParameters): void {
    this.start = start;
    const { round, place } = start;
    if (place?.level === 1) this.ownGroups.push({ round, attempt: start.attempt, group: place.group, parameters });
    this.attempts.unshift(attempt);
    for (const old of this.attempts.splice(2)) old.close();
  }

  /** End an attempt, or keep it from beginning. */
  abort(name: string, reason: string): void {
    this.aborted.push(name);
    if (this.aborted.length > MAX_ABORTED) this.aborted.shift();
    for (const attempt of this.attempts) if (attempt.name === name) attempt.abort(reason);
  }

  /** End whatever is under way and give the memory of its graphs back. */
  close(): void {
    for (const attempt of this.attempts) attempt.close();
    void this.training.then(() => this.trainer.close());
  }
}

/** Of round 0: the plan's shared parameters and buffers, then fresh moments. */
function initialModel(signed: SignedRun, plan: Plan): Model {
  const parameters = plan.sharedCount;
  const moments = initialMoments(signed.terms.server_optimizer);
  const model = new Float32Array(plan.modelLength + moments.length * parameters);
  model.set(plan.initialModel());
  moments.forEach((value, i) => {
    const start = plan.modelLength + i * parameters;
    model.fill(value, start, start + parameters);
  });
  return model;
}
