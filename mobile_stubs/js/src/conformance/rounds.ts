/** A whole round from one peer's side (spec/peer-under-test.md, "Rounds"): the machine itself, fed in virtual time. */

import { concat, fromHex, toHex, type Bytes } from "../protocol/bytes.js";
import { RoundError } from "../protocol/errors.js";
import { Identity } from "../protocol/identity.js";
import { termsSchema } from "../protocol/terms.js";
import type { Action, Outcome } from "../round/actions.js";
import { parseMessage } from "../round/layout.js";
import { RoundMachine } from "../round/machine.js";
import { isOf, type Message, type Received } from "../round/messages.js";
import { applyAggregate, type Model, modelBytes, modelDigest, tailBytes } from "../secagg/apply.js";
import { type Contribution, cohortRoundIdOf, GroupSum } from "../secagg/combining.js";
import { RoundParameters } from "../secagg/parameters.js";
import { floatsOf, type Json, refuse } from "./json.js";
import { settingOf } from "./operations.js";

const TO_ALL: ReadonlySet<Message["type"]> = new Set(["advert", "commit", "reveal", "sum", "result"]);
const TO_ONE: ReadonlySet<Message["type"]> = new Set(["share", "chunk", "vote"]);

/** Answers a `rounds` request. */
export async function playRound(g: Json): Promise<Json> {
  const player = await Player.of(g);
  return player.play();
}

/** The shell of one machine: carries its actions out at once. */
class Player {
  private readonly outbox = new Map<string, Json>();
  private readonly sent = new Set<string>();
  private now = 0;
  private model: Model | null = null;
  private end: Action | null = null;
  private isGoneKnown = false;

  private constructor(
    private readonly given: Json,
    private readonly parameters: RoundParameters,
    private readonly machine: RoundMachine,
    private readonly inbox: readonly Received[],
  ) {}

  static async of(g: Json): Promise<Player> {
    const { announcement: a, peer } = g;
    const roundId = await cohortRoundIdOf(a.parameters.run_id, a.round, a.attempt, a.place ?? null);
    const digests = { roundId, planDigest: a.plan_digest, modelDigest: a.model_digest };
    const parameters = new RoundParameters(settingOf(a.parameters, digests));
    const machine = await RoundMachine.create({
      parameters,
      identity: await Identity.fromSeed(fromHex(peer.identity_seed)),
      fingerprint: fromHex(peer.fingerprint),
      deadlines: defaultDeadlines(),
      randomness: concat(...secretsOf(peer), new Uint8Array(32)),
      rounding: async () => Uint32Array.from((peer.randoms ?? []) as number[]),
    });
    const bounds = { peers: parameters.size, tag: fromHex(roundId).slice(0, 8), chunkBytes: null };
    return new Player(g, parameters, machine, g.inbox.map((text: string) => parseMessage(fromHex(text), bounds)));
  }

  async play(): Promise<Json> {
    await this.begin();
    for (const received of this.inbox) await this.deliver(received);
    while (this.end === null) {
      this.now = this.machine.nextDeadline() ?? refuse("the machine neither ends nor waits");
      await this.run(await this.machine.tick(this.now));
    }
    if (this.model === null || this.end.action !== "completed") {
      refuse(this.end.action === "failed" ? this.end.reason : "the round gave no model");
    }
    const parameters = floatsOf(this.given.announcement.theta).length;
    return {
      outbox: [...this.outbox.values()],
      theta: toHex(modelBytes(this.model.slice(0, parameters))),
      buffers: toHex(modelBytes(this.model.slice(parameters))),
    };
  }

  private async begin(): Promise<void> {
    const { machine } = this;
    for (const received of this.inbox) {
      if (!isOf(received, "advert")) continue;
      await this.run(await machine.linkUp(received.sender, received.message.fingerprint, this.now));
    }
    await this.run(await machine.start(this.now));
    await this.run(await machine.provideUpdate(this.contribution(), this.now));
  }

  private contribution(): Contribution {
    const { peer, announcement } = this.given;
    if (this.parameters.combines) return new GroupSum(Int32Array.from(peer.group_sum as number[]));
    const groups = peer.groups.map((group: Json) => ({
      fraction: group.weight / announcement.max_examples,
      ratios: group.means.map((mean: number, i: number) => mean / group.bounds[i]),
    }));
    return { values: floatsOf(peer.update), groups };
  }

  /** Links to peers that fall silent are lost when the vote comes, or earlier where this peer's own decision waits. */
  private async deliver(received: Received): Promise<void> {
    const isOwn = received.sender === this.machine.ownIndex;
    if (received.message.type === "vote" || received.message.type === "certificate" || isOwn) {
      if (!isOwn || !this.sent.has(toHex(received.raw))) await this.loseGone();
    }
    if (isOwn) return; // the machine leads by itself
    const bulk = received.message.type === "chunk" || received.message.type === "sum";
    await this.run(await this.machine.receive(received.sender, received.raw, bulk, this.now));
  }

  private async loseGone(): Promise<void> {
    if (this.isGoneKnown) return;
    this.isGoneKnown = true;
    for (const index of this.given.gone) await this.run(await this.machine.linkDown(index, this.now));
  }

  private async run(actions: readonly Action[]): Promise<void> {
    for (const action of actions) {
      if (action.action === "send") this.note(action.to, action.data);
      else if (action.action === "work") {
        const outcome = await outcomeOf(action.job);
        await this.run(await this.machine.finishWork(action.number, outcome, this.now));
      } else if (action.action === "revealed") {
        const { setting, largestContribution: largestValue } = this.parameters;
        const old = floatsOf(this.given.announcement.theta + this.given.announcement.buffers);
        this.model = applyAggregate(old, action.aggregate, { clip: setting.clip, largestValue });
        const tail = tailBytes(action.aggregate, old.length);
        await this.run(await this.machine.provideResult(await modelDigest(this.model), tail, this.now));
      } else if (action.action === "completed" || action.action === "failed") this.end = action;
    }
  }

  private note(to: number, data: Bytes): void {
    const bounds = { peers: this.parameters.size, tag: data.slice(4, 12), chunkBytes: null };
    const { type } = parseMessage(data, bounds).message;
    const bytes = toHex(data);
    this.sent.add(bytes);
    if (TO_ALL.has(type)) this.outbox.set(bytes, { to: "all", type, bytes });
    else if (TO_ONE.has(type)) this.outbox.set(`${to} ${bytes}`, { to, type, bytes });
  }
}

async function outcomeOf(job: () => Promise<unknown>): Promise<Outcome> {
  try {
    return { value: await job() };
  } catch (error) {
    if (error instanceof RoundError) return { error };
    throw error;
  }
}

function secretsOf(peer: Json): Bytes[] {
  return ["mask_private", "enc_private", "seed", "coefficients"].map((name) => fromHex(peer[name]));
}

function defaultDeadlines() {
  const terms = { name: "vector", plan: "0".repeat(64), nonce: "0".repeat(64), rounds: 1, clip: 1 };
  const sizes = { cohort_size: 3, min_cohort: 3, min_survivors: 3, local: { batch_size: 1, learning_rate: 1 } };
  return termsSchema.read({ ...terms, ...sizes }, "terms").deadlines;
}
