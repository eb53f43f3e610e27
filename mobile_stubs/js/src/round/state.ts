/** What every part of one attempt shares: who this peer is, what time it is, and what was agreed so far. */

import { type Bits, bit, bitsOf, has, indexesOf, NONE } from "../protocol/bits.js";
import type { Bytes } from "../protocol/bytes.js";
import { RoundError, RoundFailedError } from "../protocol/errors.js";
import type { Identity } from "../protocol/identity.js";
import type { Deadlines } from "../protocol/terms.js";
import { RoundSecrets, SECRETS_BYTES } from "../secagg/keys.js";
import { type ChunkPlan, maskedDigest, type RoundParameters, survivorsDigest } from "../secagg/parameters.js";
import { roundingStream } from "../secagg/prg.js";
import type { Rounding } from "../secagg/quantise.js";
import { coefficientBytes } from "../secagg/shamir.js";
import { Codec } from "./codec.js";
import { Post } from "./post.js";

/** Where a peer stands in an attempt. */
export const Stage = {
  ADVERTISE: 0,
  SHARE: 1,
  COLLECT: 2,
  UNMASK: 3,
  SUM: 4,
  AGREE: 5,
  DONE: 6,
  FAILED: 7,
} as const;
export type Stage = (typeof Stage)[keyof typeof Stage];

const STAGE_NAMES = ["advertise", "share", "collect", "unmask", "sum", "agree", "done", "failed"] as const;
const ROUNDING_KEY_BYTES = 32;

/** The name of a stage, in lower case. */
export function stageName(stage: Stage): string {
  return STAGE_NAMES[stage];
}

/** Bytes of the operating system's randomness that one attempt takes. */
export function randomnessBytes(parameters: RoundParameters): number {
  return SECRETS_BYTES + 2 * coefficientBytes(parameters.threshold) + ROUNDING_KEY_BYTES;
}

/** What an attempt begins with. Times are milliseconds. */
export interface AttemptOptions {
  readonly parameters: RoundParameters;
  /** This peer's key; it must be in the cohort. */
  readonly identity: Identity;
  /** SHA-256 of this peer's DTLS certificate. */
  readonly fingerprint: Bytes;
  readonly deadlines: Deadlines;
  /** `randomnessBytes(parameters)` fresh bytes of the operating system, never used twice. */
  readonly randomness: Bytes;
  /** Where the rounding of the update comes from; by default from `randomness`. For vectors alone. */
  readonly rounding?: Rounding;
}

/** State that more than one part of the machine reads; nothing in it prints a secret. */
export class RoundState {
  stage: Stage = Stage.ADVERTISE;
  now = 0;
  stageDeadline = Infinity;
  end = Infinity;
  /** Counts what may let another step be taken. */
  changes = 0;
  readonly onEnter: (() => void)[] = [];

  roster: Bits = NONE;
  maskSet: Bits = NONE;
  survivors: Bits = NONE;
  t1: Bytes | null = null;
  t2: Bytes | null = null;
  t3: Bytes | null = null;
  plan: ChunkPlan | null = null;

  private readonly work = new Map<number, (value: unknown) => Promise<void>>();
  private workNumber = 0;

  private constructor(
    readonly options: AttemptOptions,
    readonly ownIndex: number,
    readonly t0: Bytes,
    readonly secrets: RoundSecrets,
    private coefficients: Bytes,
    readonly rounding: Rounding,
    readonly post: Post,
  ) {}

  /**
   * Prepare an attempt.
   *
   * @throws RoundError the randomness has another length, or the identity is not in the cohort.
   */
  static async create(options: AttemptOptions): Promise<RoundState> {
    const { parameters, identity, randomness } = options;
    const expected = randomnessBytes(parameters);
    if (randomness.length !== expected) {
      throw new RoundError(`an attempt takes ${expected} random bytes, got ${randomness.length}`);
    }
    const ownIndex = parameters.setting.cohort.indexOf(identity.peerId);
    if (ownIndex < 0) throw new RoundError("this peer is not in the cohort");
    const t0 = await parameters.t0();
    const secrets = await RoundSecrets.from(randomness.slice(0, SECRETS_BYTES));
    const cut = expected - ROUNDING_KEY_BYTES;
    const rounding = options.rounding ?? (await roundingStream(randomness.slice(cut)));
    const post = new Post(new Codec(parameters, t0), identity, ownIndex, parameters.size);
    return new RoundState(options, ownIndex, t0, secrets, randomness.slice(SECRETS_BYTES, cut), rounding, post);
  }

  get parameters(): RoundParameters {
    return this.options.parameters;
  }

  /** How long one more exchange of small messages may take, in milliseconds. */
  get grace(): number {
    return this.options.deadlines.consistency_ms;
  }

  /** The random coefficients of b, then of the mask key. */
  shareCoefficients(): readonly [Bytes, Bytes] {
    const half = this.coefficients.length / 2;
    return [this.coefficients.slice(0, half), this.coefficients.slice(half)];
  }

  /** The attempt ends when the sum of all its deadlines is used up (spec 07 §11). */
  beginClock(): void {
    this.end = Object.values(this.options.deadlines).reduce((sum, limit) => sum + limit, this.now);
  }

  /**
   * Refuse to go on past the attempt's end.
   *
   * @throws RoundFailedError it is reached.
   */
  checkEnd(): void {
    if (this.now < this.end) return;
    throw new RoundFailedError(`the attempt took longer than all its deadlines, in stage ${stageName(this.stage)}`);
  }

  /** Go to a stage that may wait `limit` milliseconds. */
  enter(stage: Stage, limit: number): void {
    this.stage = stage;
    this.changes++;
    this.stageDeadline = this.now + limit;
    for (const hook of this.onEnter) hook();
    this.post.actions.push({ action: "stage", stage: stageName(stage) });
  }

  /** Whether the stage's deadline, and then some graces, have passed. */
  isOverdue(graces = 0): boolean {
    return this.now >= this.stageDeadline + graces * this.grace;
  }

  /** Whether a peer's link is not lost and it did not leave. */
  isLive(index: number): boolean {
    return index === this.ownIndex || this.post.link(index).live;
  }

  /** Those of a set that are live, this peer among them. */
  live(members: Bits): Bits {
    return bitsOf(indexesOf(members).filter((index) => this.isLive(index)));
  }

  /** Whether this peer is in a set. */
  isIn(members: Bits): boolean {
    return has(members, this.ownIndex);
  }

  /** A set without this peer. */
  others(members: Bits): Bits {
    return members & ~bit(this.ownIndex);
  }

  /** The chunks of the mask set, which is adopted. */
  chunkPlan(): ChunkPlan {
    return agreed(this.plan, "mask set");
  }

  /** Fix K: it names T2 and cuts the vector into chunks. */
  async adoptMaskSet(members: Bits): Promise<void> {
    this.t2 = await maskedDigest(agreed(this.t1, "roster"), members);
    this.maskSet = members;
    this.plan = this.parameters.chunks(members);
    this.post.codec.knowChunks(this.plan);
  }

  /** Fix U: it names T3. */
  async adoptSurvivors(members: Bits, root: Bytes): Promise<void> {
    this.t3 = await survivorsDigest(agreed(this.t2, "mask set"), members, root);
    this.survivors = members;
  }

  /** Have a job run beside everything else; `then` takes what it gives. */
  beginWork<T>(job: () => Promise<T>, then: (value: T) => Promise<void>): void {
    const number = ++this.workNumber;
    this.work.set(number, then as (value: unknown) => Promise<void>);
    this.post.actions.push({ action: "work", number, job });
  }

  /** What waits for the outcome of a job; each outcome is taken once. */
  takeWork(number: number): (value: unknown) => Promise<void> {
    const then = this.work.get(number);
    if (then === undefined) throw new RangeError(`no job has number ${number}`);
    this.work.delete(number);
    return then;
  }

  /** Drop the keys of the attempt. */
  forgetSecrets(): void {
    this.secrets.forget();
    this.coefficients = new Uint8Array(0);
  }

  toJSON(): string {
    return `RoundState(peer=${this.ownIndex}, stage=${stageName(this.stage)})`;
  }
}

/** A value that an earlier stage has fixed; asking for it before is a defect of the machine, not of a peer. */
export function agreed<T>(value: T | null | undefined, what: string): T {
  if (value === null || value === undefined) throw new Error(`the ${what} is not agreed on yet`);
  return value;
}
