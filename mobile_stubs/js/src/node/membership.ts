/** A node's part in one run: the model it holds, and what it checks before it takes part in a round (spec 06 §3). */

import type { Plan } from "../plans/plan.js";
import { type Bytes, short, toHex } from "../protocol/bytes.js";
import { ProtocolError } from "../protocol/errors.js";
import type { PeerId } from "../protocol/identity.js";
import type { ServerMessages } from "../protocol/signaling/messages.js";
import { tailLength } from "../protocol/tail.js";
import type { RunTerms } from "../protocol/terms.js";
import { BULK_OVERHEAD_BYTES } from "../round/codec.js";
import { type Model, modelBytes, modelDigest, modelFrom } from "../secagg/apply.js";
import { RoundParameters, roundIdOf } from "../secagg/parameters.js";
import type { Attempt } from "./attempt.js";
import type { Storage } from "./platform.js";
import type { Trainer } from "./trainer.js";

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
  private readonly named = new Set<string>();

  private constructor(
    readonly signed: SignedRun,
    readonly plan: Plan,
    readonly trainer: Trainer,
    private readonly storage: Storage,
    public round: number,
    public model: Model,
    public digest: string,
  ) {}

  /** Begin with the newest checkpoint in storage, or with the plan's initial model. */
  static async restore(signed: SignedRun, plan: Plan, trainer: Trainer, storage: Storage): Promise<Membership> {
    const found = await storage.loadCheckpoint(signed.run);
    const isFit = found !== null && found.model.length === 4 * plan.modelLength;
    const model = isFit ? modelFrom(found.model) : plan.initialModel();
    return new Membership(signed, plan, trainer, storage, isFit ? found.round : 0, model, await modelDigest(model));
  }

  /** Digest of the model the plan itself starts from. */
  initialDigest(): Promise<string> {
    return modelDigest(this.plan.initialModel());
  }

  /** Whether an announcement is the first of its round id: it is sent again when a session reconnects. */
  isNew(roundId: string): boolean {
    if (this.named.has(roundId)) return false;
    this.named.add(roundId);
    return true;
  }

  /** Bytes of the model on the wire. */
  get modelBytes(): number {
    return 4 * this.plan.modelLength;
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
    await this.storage.saveCheckpoint(this.signed.run, round, digest, modelBytes(model));
    this.round = round;
    this.model = model;
    this.digest = digest;
  }

  /** The bytes of a model, where this node holds the one that is asked for. */
  async lookup(round: number, digest: string): Promise<Bytes | null> {
    return this.round === round && this.digest === digest ? modelBytes(this.model) : null;
  }

  /**
   * The parameters of an announced attempt, after checking the announcement against what this node holds.
   *
   * @throws ProtocolError another round, model or id than this node holds, or a cohort the terms do not allow.
   */
  async parameters(start: ServerMessages["round_start"]): Promise<RoundParameters> {
    const { run, terms } = this.signed;
    const what = `run ${short(run)}`;
    if (start.round !== this.round + 1 || start.model_digest !== this.digest) {
      throw new ProtocolError(
        `${what}: signaling names round ${start.round} with model ${short(start.model_digest)}, ` +
          `this node holds round ${this.round} with model ${short(this.digest)}`,
      );
    }
    const roundId = toHex(await roundIdOf(run, start.round, start.attempt));
    if (start.round_id !== roundId) throw new ProtocolError(`${what}: round id ${short(start.round_id)} is not that of the round`);
    const cohort = start.members.map((member) => member.peer);
    if (cohort.length < terms.min_cohort || cohort.length > terms.cohort_size) {
      throw new ProtocolError(`${what}: a cohort of ${cohort.length}, terms say ${terms.min_cohort} to ${terms.cohort_size}`);
    }
    const strangers = terms.members.length === 0 ? [] : cohort.filter((peer) => !terms.members.includes(peer));
    if (strangers.length > 0 || start.round > terms.rounds || start.attempt > terms.retries + 1) {
      throw new ProtocolError(
        `${what}: ${strangers.length} peers outside the author's list, round ${start.round} of ${terms.rounds}, ` +
          `attempt ${start.attempt} of ${terms.retries + 1}`,
      );
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

  /** Let go of all but the newest attempt, and take a new one. */
  begin(attempt: Attempt): void {
    this.attempts.unshift(attempt);
    for (const old of this.attempts.splice(2)) old.close();
  }

  /** End whatever is under way. */
  close(): void {
    for (const attempt of this.attempts) attempt.close();
  }
}
