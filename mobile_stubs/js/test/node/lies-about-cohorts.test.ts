import { afterEach, describe, expect, it } from "vitest";
import { Identity } from "../../src/protocol/identity.js";
import { cohortRoundIdOf, type Place } from "../../src/secagg/combining.js";
import { offerBy, type Offered } from "./tiny-plan.js";
import { named, TestNode } from "./world.js";

const nodes: TestNode[] = [];
afterEach(() => {
  for (const { node } of nodes.splice(0)) node.stop();
});

/** A node that is in a run of up to three cohorts and ready for its first round. */
async function joined(terms: Record<string, unknown> = { cohorts: 3 }): Promise<{ test: TestNode; offered: Offered }> {
  const test = await TestNode.connect();
  nodes.push(test);
  const offered = await offerBy(await Identity.generate(), terms);
  test.server.offer(offered);
  await test.server.until("ready");
  return { test, offered };
}

async function at(test: TestNode, offered: Offered, place: Place | null, changes: Record<string, unknown> = {}) {
  const round_id = await cohortRoundIdOf(offered.run, 1, 1, place);
  return named(test.node.peerId, offered, { place, round_id, ...changes });
}

const DELEGATES = { level: 2, group: 0 };
const COMBINING = {
  sources: [0, 0, 1],
  multiplicity: 3,
  groups: [0, 1].map((group) => ({ group, members: 3, survivors: 3 })),
};

describe("a signaling server that lies about the cohorts of a round", () => {
  const groups: (Place | null)[] = [null, { level: 1, group: 0 }, { level: 1, group: 2 }];
  for (const first of groups) {
    for (const second of groups) {
      const name = (place: Place | null) => (place === null ? "a plain round" : `group ${place.group}`);
      it(`after ${name(first)} cannot have ${name(second)} of the same attempt joined, even after a restart`, async () => {
        const { test, offered } = await joined();
        test.storage.journal.push(`${await cohortRoundIdOf(offered.run, 1, 1, first)} joined`);
        test.server.say(await at(test, offered, second));
        const failed = await test.server.until("round_failed");
        expect(failed).toMatchObject({ place: second, reason: expect.stringMatching(/joined round id .* before/) as string });
        expect(test.storage.journal).toHaveLength(1);
      });
    }
  }

  it("names a group: it is joined, in its own name", async () => {
    const { test, offered } = await joined();
    test.server.say(await at(test, offered, { level: 1, group: 1 }));
    expect(await test.until("round")).toMatchObject({ run: offered.run, round: 1, attempt: 1 });
    expect(test.of("error")).toEqual([]);
  });

  it("closes one group: another one of the attempt goes on", async () => {
    const { test, offered } = await joined({ cohorts: 3, deadlines: { link_ms: 100 } });
    const closed = { type: "round_aborted", run: offered.run, round: 1, attempt: 1, reason: "" };
    test.server.say({ ...closed, place: { level: 1, group: 0 } });
    test.server.say(await at(test, offered, { level: 1, group: 1 }));
    await test.until("round");
    test.server.say({ ...closed, place: { level: 1, group: 1 } });
    expect((await test.server.until("round_failed")).reason).toMatch(/signaling closed the attempt/);
  });

  it("names it a delegate: it holds no group's sum", async () => {
    const { test, offered } = await joined();
    test.server.say(await at(test, offered, DELEGATES, { combining: COMBINING }));
    const failed = await test.server.until("round_failed");
    expect(failed.reason).toMatch(/named as a delegate, but this node holds no group's sum of that attempt/);
    expect(failed).toMatchObject({ place: DELEGATES });
    await test.server.until("ready", 2);
  });

  it.each<[string, Place | null, Record<string, unknown>]>([
    ["a group where the terms allow one cohort", { level: 1, group: 0 }, {}],
    ["delegates where the terms allow one cohort", DELEGATES, { combining: COMBINING }],
    ["a plain round with groups to combine", null, { combining: COMBINING }],
  ])("names %s: it is refused", async (_, place, changes) => {
    const { test, offered } = await joined({});
    test.server.say(await at(test, offered, place, changes));
    expect((await test.server.until("round_failed")).reason).toMatch(/terms say 1 cohorts/);
    expect(test.storage.journal).toEqual([]);
  });
});
