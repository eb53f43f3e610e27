/** A node's part in one run: the model it holds, and what it checks before it takes part in a round (spec 06 §3). */

import type { Plan } from "../plans/plan.js";
import { type Bytes, short, toHex } from "../protocol/bytes.js";
import { ProtocolError } from "../protocol/errors.js";
import type { PeerId } from "../protocol/identity.js";
import { initialMoments } from "../protocol/server-optimizer.js";
import type { ServerMessages } from "../protocol/signaling/messages.js";
import { tailLength } from "../protocol/tail.js";
import type { RunTerms } from "../protocol/terms.js";
import { BULK_OVERHEAD_BYTES } from "../round/codec.js";
import { type Model, modelBytes, modelDigest, modelFrom } from "../secagg/apply.js";
import type { LocalUpdate } from "../secagg/quantise.js";
import { RoundParameters, roundIdOf } from "../secagg/parameters.js";
import type { Attempt } from "./attempt.js";
import type { Storage } from "./platform.js";
import type { Trainer } from "./trainer.js";

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

  /** Begin with the newest checkpoint in storage, or with the plan's initial model. */
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

  /** What is trained and predicts: parameters and buffers, without the server optimizer's moments. */
  get fit(): Model {
    return this.model.slice(0, this.plan.modelLength);
  }

  /** Bytes of the model on the wire. */
  get modelBytes(): number {
    return this.model.byteLength;
  }

  /** Bytes of the largest bulk message this run's rounds may bring. */
  get bulkLimit(): number {
    const { terms } = this.signed;
    const perChunk = Math.ceil(this.vectorLength / (8 * terms.min_survivors)) * 8;
    return BULK_OVERHEAD_BYTES + (perChunk * terms.ring_bits) / 8;
  }

  private get vectorLength(): number {
    return this.plan.modelLength + tailLength(this.plan.manifest, this.signed.terms);
  }

  /** This is the model after `round` rounds; it is stored before this resolves. */
  async hold(round: number, model: Model): Promise<void> {
    const digest = await modelDigest(model);
    const reached = Math.max(this.reached, round);
    await this.storage.saveCheckpoint(this.signed.run, { round, reached, digest, model: modelBytes(model) });
    this.round = round;
    this.reached = reached;
    this.model = model;
    this.digest = digest;
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
  async parameters(start: ServerMessages["round_start"]): Promise<RoundParameters> {
    const { run, terms } = this.signed;
    const what = `run ${short(run)}`;
    if (start.attempt > terms.retries + 1) {
      // every attempt trains anew: without this, signaling could have as many sums of one round as it likes
      throw new ProtocolError(
        `${what}: signaling names attempt ${start.attempt} at round ${start.round}, terms say ${terms.retries + 1} at most`,
      );
    }
    this.checkRound(start.round);
    if (start.round !== this.round + 1 || start.model_digest !== this.digest) {
      throw new ProtocolError(
        `${what}: signaling names round ${start.round} with model ${short(start.model_digest)}, ` +
          `this node holds round ${this.round} with model ${short(this.digest)}`,
      );
    }
    const roundId = toHex(await roundIdOf(run, start.round, start.attempt));
    if (start.round_id !== roundId) throw new ProtocolError(`${what}: round id ${short(start.round_id)} is not that of the round`);
    const cohort = start.members.map((member) => member.peer);
    this.checkCohort(cohort, start.round);
    if (this.aborted.includes(`${start.round}/${start.attempt}`)) {
      throw new ProtocolError(`${what}: attempt ${start.attempt} at round ${start.round} is closed already`);
    }
    if (await this.storage.joined(roundId)) throw new ProtocolError(`${what}: this node joined round id ${short(roundId)} before`);
    return new RoundParameters({
      runId: run,
      roundId,
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

  private checkCohort(cohort: readonly PeerId[], round: number): void {
    const { run, terms } = this.signed;
    const what = `run ${short(run)}`;
    if (cohort.length < terms.min_cohort || cohort.length > terms.cohort_size) {
      throw new ProtocolError(`${what}: a cohort of ${cohort.length}, terms say ${terms.min_cohort} to ${terms.cohort_size}`);
    }
    if (!cohort.includes(this.own)) throw new ProtocolError(`${what}: the cohort is named without this peer`);
    const strangers = terms.members.length === 0 ? [] : cohort.filter((peer) => !terms.members.includes(peer));
    if (strangers.length > 0 || round > terms.rounds) {
      throw new ProtocolError(
        `${what}: the cohort names ${strangers.length} peers outside the author's list, or round ${round} of ${terms.rounds}`,
      );
    }
  }

  /** This peer's update from the model it holds now; one training at a time. */
  train(roundId: string, onProgress: (done: number, total: number) => void): (signal: AbortSignal) => Promise<LocalUpdate> {
    const checkpoint = this.fit;
    return (signal) => {
      // the stretch of steps of an attempt that was called off may not be over yet
      const turn = this.training.then(() => this.trainer.update(checkpoint, roundId, signal, onProgress));
      this.training = turn.catch(() => undefined);
      return turn;
    };
  }

  /** Let go of all but the newest attempt, and take a new one. */
  begin(attempt: Attempt): void {
    this.attempts.unshift(attempt);
    for (const old of this.attempts.splice(2)) old.close();
  }

  /** End an attempt, or keep it from beginning. */
  abort(round: number, number: number, reason: string): void {
    this.aborted.push(`${round}/${number}`);
    if (this.aborted.length > MAX_ABORTED) this.aborted.shift();
    for (const attempt of this.attempts) if (attempt.isOf(round, number)) attempt.abort(reason);
  }

  /** End whatever is under way and give the memory of its graphs back. */
  close(): void {
    for (const attempt of this.attempts) attempt.close();
    void this.training.then(() => this.trainer.close());
  }
}

/** Of round 0: the plan's parameters and buffers, then fresh moments. */
function initialModel(signed: SignedRun, plan: Plan): Model {
  const parameters = plan.manifest.parameter_count;
  const moments = initialMoments(signed.terms.server_optimizer);
  const model = new Float32Array(plan.modelLength + moments.length * parameters);
  model.set(plan.initialModel());
  moments.forEach((value, i) => {
    const start = plan.modelLength + i * parameters;
    model.fill(value, start, start + parameters);
  });
  return model;
}
