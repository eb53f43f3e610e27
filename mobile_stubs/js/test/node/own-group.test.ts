import { describe, expect, it } from "vitest";
import type { Attempt } from "../../src/node/attempt.js";
import { Membership } from "../../src/node/membership.js";
import type { Trainer } from "../../src/node/trainer.js";
import type { Plan } from "../../src/plans/plan.js";
import type { LogEntry, ServerMessages } from "../../src/protocol/signaling/messages.js";
import { termsSchema } from "../../src/protocol/terms.js";
import { cohortRoundIdOf, GroupSum, type Place } from "../../src/secagg/combining.js";
import type { RoundParameters } from "../../src/secagg/parameters.js";
import { MemoryStorage } from "./world.js";

const RUN = "5a".repeat(32);
const PEERS = ["1", "2", "3", "4", "5", "6"].map((digit) => digit.repeat(64)) as [string, string, string, string, string, string];
const OWN = PEERS[0];
const GROUP = PEERS.slice(0, 3);
const DELEGATES = [PEERS[0], PEERS[1], PEERS[3], PEERS[4]];
const COMBINING = {
  sources: [0, 0, 1, 1],
  multiplicity: 3,
  groups: [0, 1].map((group) => ({ group, members: 3, survivors: 3 })),
};
const ZEROS = "0".repeat(64);
const LOCAL = { batch_size: 1, learning_rate: 1 };
const SIZES = { rounds: 5, cohort_size: 3, min_cohort: 3, min_survivors: 3, cohorts: 2 };

/** A trainer of a plan without parameters of the node's own. */
const NO_OWN = { local: new Float32Array(0), trained: new Float32Array(0) } as unknown as Trainer;

async function membership(): Promise<Membership> {
  const terms = termsSchema.read({ name: "run", plan: ZEROS, nonce: ZEROS, clip: 1, evaluate: false, local: LOCAL, ...SIZES }, "terms");
  const manifest = { parameter_count: 3, metrics: [] };
  const plan = { modelLength: 3, sharedCount: 3, digest: ZEROS, manifest, initialModel: () => new Float32Array(3) } as unknown as Plan;
  return Membership.restore({ run: RUN, author: OWN, terms }, plan, NO_OWN, OWN, new MemoryStorage());
}

async function start(m: Membership, place: Place, attempt = 1): Promise<ServerMessages["round_start"]> {
  const isLast = place.level === 2;
  const members = (isLast ? DELEGATES : GROUP).map((peer) => ({ peer, sealing_key: null, sealing_signature: null }));
  const round_id = await cohortRoundIdOf(RUN, 1, attempt, place);
  const combining = isLast ? COMBINING : null;
  return { type: "round_start", run: RUN, round: 1, attempt, round_id, model_digest: m.digest, members, place, combining };
}

/** The node goes through its group; gives the parameters of the delegates' cohort, and the sum. */
async function throughGroup(m: Membership): Promise<{ parameters: RoundParameters; total: GroupSum }> {
  const first = await start(m, { level: 1, group: 0 });
  m.begin({ isEnded: true, close: () => {} } as unknown as Attempt, first, await m.parameters(first));
  const total = new GroupSum(new Int32Array(4));
  m.holdSum(first, total);
  return { parameters: await m.parameters(await start(m, { level: 2, group: 0 })), total };
}

const progress = () => {};

describe("the sum of a node's own group", () => {
  it("is put in where its delegates combine, once", async () => {
    const m = await membership();
    const { parameters, total } = await throughGroup(m);
    expect(parameters.setting).toMatchObject({ sources: [0, 0, 1, 1], multiplicity: 3, ringBits: 32, minSurvivors: 3 });
    expect(await m.contribution(parameters, progress)(new AbortController().signal)).toBe(total);
    await expect(m.parameters(await start(m, { level: 2, group: 0 }))).rejects.toThrow(/holds no group's sum of that attempt/);
  });

  it("is of its attempt alone, and given up where another cohort that sums updates begins", async () => {
    const m = await membership();
    await throughGroup(m);
    await expect(m.parameters(await start(m, { level: 2, group: 0 }, 2))).rejects.toThrow(/holds no group's sum of that attempt/);
    m.contribution(await m.parameters(await start(m, { level: 1, group: 1 }, 2)), progress);
    await expect(m.parameters(await start(m, { level: 2, group: 0 }))).rejects.toThrow(/holds no group's sum of that attempt/);
  });

  it("goes on to its delegates' cohort, and to no other", async () => {
    const m = await membership();
    await throughGroup(m);
    expect(m.goesOnWith(await start(m, { level: 2, group: 0 }))).toBe(true);
    expect(m.goesOnWith(await start(m, { level: 2, group: 0 }, 2))).toBe(false);
    expect(m.goesOnWith(await start(m, { level: 1, group: 0 }, 2))).toBe(false);
  });

  it("is remembered by who was in it until the round is over: no log with outsiders that speak for it is believed", async () => {
    const m = await membership();
    await throughGroup(m);
    const entry = { round: 1, attempt: 1, cohort: DELEGATES, combining: COMBINING } as unknown as LogEntry;
    expect(() => m.checkDelegates(entry)).not.toThrow();
    const outsiders = { ...entry, cohort: [PEERS[0], PEERS[3], PEERS[4], PEERS[5]] };
    expect(() => m.checkDelegates(outsiders)).toThrow(/44444444 speaks for group 0 but was not in it/);
    expect(() => m.checkDelegates({ ...entry, combining: null })).toThrow(/none is logged/);
    expect(() => m.checkDelegates({ ...outsiders, attempt: 2 })).not.toThrow();
    await m.hold(1, m.model);
    expect(() => m.checkDelegates(outsiders)).toThrow(/speaks for group/);
    await m.hold(2, m.model);
    expect(() => m.checkDelegates(outsiders)).not.toThrow();
  });
});
