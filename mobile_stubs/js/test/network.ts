/** Machines of one cohort joined in memory, in virtual time: messages are delivered in order, lost or changed at will. */

import { fromHex } from "../src/protocol/bytes.js";
import { randomBytes } from "../src/protocol/crypto.js";
import { RoundError } from "../src/protocol/errors.js";
import { Identity } from "../src/protocol/identity.js";
import type { Deadlines } from "../src/protocol/terms.js";
import type { Action, Completed, Failed } from "../src/round/actions.js";
import { RoundMachine } from "../src/round/machine.js";
import { randomnessBytes } from "../src/round/state.js";
import { type Aggregate, applyAggregate, type Model, modelDigest, tailBytes } from "../src/secagg/apply.js";
import { type Contribution, contributionLength, GroupSum } from "../src/secagg/combining.js";
import { RoundParameters } from "../src/secagg/parameters.js";
import type { LocalUpdate } from "../src/secagg/quantise.js";

export const DEADLINES: Deadlines = {
  link_ms: 1000,
  train_ms: 1000,
  advertise_ms: 1000,
  share_ms: 1000,
  commit_ms: 1000,
  consistency_ms: 1000,
  unmask_ms: 1000,
  sum_ms: 1000,
};

/** What a network is made of. */
export interface NetworkOptions {
  readonly length?: number;
  readonly ringBits?: number;
  readonly replicas?: number;
  readonly delegates?: {
    readonly totals: readonly GroupSum[];
    readonly sources: readonly number[];
    readonly multiplicity: number;
  };
}

interface Mail {
  readonly from: number;
  readonly to: number;
  readonly data: Uint8Array<ArrayBuffer>;
  readonly bulk: boolean;
}

/** One peer's machine, its shell and what came of it. */
export class TestPeer {
  end: Completed | Failed | null = null;
  model: Model | null = null;
  aggregate: Aggregate | null = null;
  isGone = false;
  readonly journal: string[] = [];
  readonly faults: string[] = [];
  readonly stages: string[] = [];

  constructor(
    readonly index: number,
    readonly machine: RoundMachine,
    readonly contribution: Contribution,
  ) {}

  /** What it trained; of a peer that sums updates. */
  get update(): LocalUpdate {
    if (this.contribution instanceof GroupSum) throw new Error("a delegate has no update");
    return this.contribution;
  }
}

/** A cohort; `onMail` may drop (null) or replace what travels. */
export class Network {
  now = 0;
  readonly mail: Mail[] = [];
  onMail: (mail: Mail) => Mail | null = (mail) => mail;
  /** Called before each delivery. */
  beforeDelivery: () => void = () => {};

  private constructor(
    readonly parameters: RoundParameters,
    readonly checkpoint: Model,
    readonly peers: readonly TestPeer[],
  ) {}

  /** Peers with updates of their own, or delegates that speak for groups with these sums. */
  static async of(size: number, options: NetworkOptions = {}): Promise<Network> {
    const { length = 100, ringBits = 24, replicas = 1, delegates } = options;
    const identities = await Promise.all(Array.from({ length: size }, () => Identity.generate()));
    identities.sort((a, b) => (a.peerId < b.peerId ? -1 : 1));
    const checkpoint = Float32Array.from({ length }, (_, i) => Math.sin(i));
    const contributions = identities.map((_, peer): Contribution => delegates?.totals[peer] ?? ({
      values: Float32Array.from({ length }, (_, i) => Math.cos(i * (peer + 1)) / 100),
      groups: [{ fraction: (peer + 1) / size, ratios: [0.25] }],
    }));
    const parameters = new RoundParameters({
      runId: "11".repeat(32),
      roundId: "22".repeat(32),
      planDigest: "33".repeat(32),
      modelDigest: await modelDigest(checkpoint),
      cohort: identities.map((identity) => identity.peerId),
      minSurvivors: 3,
      ringBits,
      valueBits: ringBits === 16 ? 12 : 16,
      replicas,
      vectorLength: contributionLength(contributions[0] as Contribution),
      clip: 0.1,
      ...(delegates === undefined ? {} : { sources: delegates.sources, multiplicity: delegates.multiplicity }),
    });
    const peers = identities.map(async (identity, index) => {
      const fingerprint = fingerprintOf(index);
      const randomness = randomBytes(randomnessBytes(parameters));
      const machine = await RoundMachine.create({ parameters, identity, fingerprint, deadlines: DEADLINES, randomness });
      return new TestPeer(index, machine, contributions[index] as Contribution);
    });
    return new Network(parameters, checkpoint, await Promise.all(peers));
  }

  /** Everybody links, starts and gives its update. */
  async begin(): Promise<void> {
    for (const peer of this.peers) {
      for (const other of this.peers) {
        if (other !== peer) await this.run(peer, peer.machine.linkUp(other.index, fingerprintOf(other.index), this.now));
      }
      await this.run(peer, peer.machine.start(this.now));
      await this.run(peer, peer.machine.provideUpdate(peer.contribution, this.now));
    }
  }

  /** Deliver mail, and let time pass where there is none, until everyone that stays has an end. */
  async play(): Promise<void> {
    while (this.peers.some((peer) => !peer.isGone && peer.end === null)) {
      const mail = this.mail.shift();
      if (mail === undefined) await this.passTime();
      else await this.deliver(mail);
    }
  }

  async deliver(mail: Mail): Promise<void> {
    this.beforeDelivery();
    const to = this.peers[mail.to] as TestPeer;
    if (to.isGone || (this.peers[mail.from] as TestPeer).isGone) return;
    await this.run(to, to.machine.receive(mail.from, mail.data, mail.bulk, this.now));
  }

  /** A peer vanishes: its links break, what it sent and nobody got is lost. */
  async lose(index: number): Promise<void> {
    (this.peers[index] as TestPeer).isGone = true;
    for (const peer of this.peers) {
      if (!peer.isGone) await this.run(peer, peer.machine.linkDown(index, this.now));
    }
  }

  /** The link that a peer has to another turns out to have a certificate that nobody advertised. */
  async showAnother(index: number, other: number): Promise<void> {
    const peer = this.peers[index] as TestPeer;
    await this.run(peer, peer.machine.linkUp(other, fingerprintOf(0xee), this.now));
  }

  /** The survivors' plain weighted mean, applied. */
  expected(survivors: readonly number[]): Model {
    const weight = survivors.reduce((sum, i) => sum + (i + 1) / this.peers.length, 0);
    return this.checkpoint.map((old, at) => {
      const total = survivors.reduce(
        (sum, i) => sum + ((this.peers[i] as TestPeer).update.values[at] as number) * ((i + 1) / this.peers.length),
        0,
      );
      return old + total / weight;
    });
  }

  private async passTime(): Promise<void> {
    const due = this.peers.filter((peer) => !peer.isGone).map((peer) => peer.machine.nextDeadline() ?? Infinity);
    this.now = Math.min(...due);
    if (this.now === Infinity) throw new Error("nobody waits for anything, and somebody has no end");
    for (const peer of this.peers) if (!peer.isGone) await this.run(peer, peer.machine.tick(this.now));
  }

  private async run(peer: TestPeer, input: Promise<readonly Action[]>): Promise<void> {
    for (const action of await input) {
      switch (action.action) {
        case "send": {
          const mail = this.onMail({ from: peer.index, to: action.to, data: action.data.slice(), bulk: action.bulk });
          if (mail !== null) this.mail.push(mail);
          break;
        }
        case "persist":
          peer.journal.push(`${action.entry} ${action.detail}`);
          break;
        case "work":
          await this.run(peer, this.work(peer, action.number, action.job));
          break;
        case "revealed":
          await this.run(peer, this.apply(peer, action.aggregate));
          break;
        case "stage":
          peer.stages.push(action.stage);
          break;
        case "misbehaviour":
          peer.faults.push(action.reason);
          break;
        default:
          peer.end ??= action;
      }
    }
  }

  private async work(peer: TestPeer, number: number, job: () => Promise<unknown>): Promise<readonly Action[]> {
    try {
      return await peer.machine.finishWork(number, { value: await job() }, this.now);
    } catch (error) {
      if (!(error instanceof RoundError)) throw error;
      return peer.machine.finishWork(number, { error }, this.now);
    }
  }

  private async apply(peer: TestPeer, aggregate: Aggregate): Promise<readonly Action[]> {
    const { setting, largestContribution: largestValue } = this.parameters;
    peer.aggregate = aggregate;
    peer.model = applyAggregate(this.checkpoint, aggregate, { clip: setting.clip, largestValue });
    const tail = tailBytes(aggregate, this.checkpoint.length);
    return peer.machine.provideResult(await modelDigest(peer.model), tail, this.now);
  }
}

function fingerprintOf(index: number): Uint8Array<ArrayBuffer> {
  return fromHex(index.toString(16).padStart(2, "0").repeat(32));
}
