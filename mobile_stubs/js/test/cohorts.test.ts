import { describe, expect, it } from "vitest";
import { checkOwnGroup } from "../src/protocol/cohorts.js";
import { applyAggregate } from "../src/secagg/apply.js";
import { combiningParameters, groupSum, groupSumDigest, GroupSum } from "../src/secagg/combining.js";
import { RoundParameters } from "../src/secagg/parameters.js";
import { Network, type TestPeer } from "./network.js";

const LENGTH = 40;
const PEERS = 5;
const LARGEST = PEERS * 32767;

/** A group's sum that reaches the whole range; the weight stands after the model's coordinates. */
function total(seed: number): GroupSum {
  const sums = Int32Array.from({ length: LENGTH + 2 }, (_, i) => Math.round(LARGEST * Math.sin(seed + i)));
  sums[0] = LARGEST;
  sums[LENGTH] = 1000 * (seed + 1);
  return new GroupSum(sums);
}

function delegates(sources: readonly number[]): Promise<Network> {
  const totals = sources.map(total);
  return Network.of(sources.length, { length: LENGTH, ringBits: 32, delegates: { totals, sources, multiplicity: PEERS } });
}

/** The plain integer sum of some groups. */
function plainSum(groups: readonly number[]): number[] {
  return Array.from({ length: LENGTH + 2 }, (_, i) => groups.reduce((sum, group) => sum + (total(group).sums[i] as number), 0));
}

function ended(network: Network): TestPeer[] {
  return network.peers.filter((peer) => !peer.isGone);
}

describe("delegates", () => {
  for (const sources of [[0, 0, 1, 1], [7, 3, 7, 3], [0, 1, 2, 0, 1, 2], [5, 4, 3, 2, 1]]) {
    it(`that speak for groups ${sources.join(", ")} find the plain sum of every group, each once`, async () => {
      const network = await delegates(sources);
      await network.begin();
      await network.play();
      const plain = plainSum([...new Set(sources)]);
      const aggregate = { sums: Int32Array.from(plain), survivors: 0n, contributions: new Set(sources).size, lost: [] };
      const model = applyAggregate(network.checkpoint, aggregate, { clip: 0.1, largestValue: LARGEST });
      for (const peer of network.peers) {
        expect(peer.end?.action).toBe("completed");
        expect([...(peer.aggregate?.sums ?? [])]).toEqual(plain);
        expect(peer.model).toEqual(model);
        expect(peer.faults).toEqual([]);
      }
    });
  }

  it.each([0, 1, 2, 3])("lose number %i before the mask set: the other one of its group puts the sum in", async (lost) => {
    const network = await delegates([0, 1, 1, 0]);
    await network.begin();
    await network.lose(lost);
    await network.play();
    for (const peer of ended(network)) expect([...(peer.aggregate?.sums ?? [])]).toEqual(plainSum([0, 1]));
  });

  it("do not take what is no group's sum: the attempt of who hands it in ends", async () => {
    const network = await delegates([0, 0, 1, 1]);
    const values = new Float32Array(LENGTH);
    const update = { values, groups: [{ fraction: 1, ratios: [0.5] }] };
    Object.defineProperty(network.peers[2], "contribution", { value: update });
    await network.begin();
    await network.play();
    expect(network.peers[2]?.end).toMatchObject({ reason: "an update was handed in, this cohort sums the sum of a group of each peer" });
    expect(network.peers[0]?.end?.action).toBe("completed");
  });

  it("of peers with updates, a group's sum is not taken", async () => {
    const network = await Network.of(4, { length: LENGTH });
    Object.defineProperty(network.peers[1], "contribution", { value: total(0) });
    await network.begin();
    await network.play();
    expect(network.peers[1]?.end).toMatchObject({ reason: "the sum of a group was handed in, this cohort sums an update of each peer" });
  });

  it("do not put in more than their groups' peers could", async () => {
    const network = await delegates([0, 0, 1, 1]);
    (network.peers[0]?.contribution as GroupSum).sums[3] = -LARGEST - 1;
    await network.begin();
    await network.play();
    expect(network.peers[0]?.end).toMatchObject({ reason: expect.stringMatching(/out of range: beyond 5 peers/) as string });
  });
});

describe("a group's sum", () => {
  it("of a cohort of peers goes up a level whole, with its weight made good", async () => {
    const network = await Network.of(5, { length: LENGTH });
    await network.begin();
    await network.play();
    const [aggregate] = network.peers.map((peer) => peer.aggregate);
    if (aggregate === null || aggregate === undefined) throw new Error("no sum");
    const sum = groupSum(aggregate, network.parameters, LENGTH);
    expect(sum.sums).toEqual(aggregate.sums);
    const withoutWeight = groupSum({ ...aggregate, lost: [[LENGTH, LENGTH + 1]] }, network.parameters, LENGTH);
    expect(withoutWeight.sums[LENGTH]).toBe(LARGEST);
    expect(await groupSumDigest(withoutWeight)).not.toBe(await groupSumDigest(sum));
    expect(JSON.stringify(sum)).not.toContain(String(sum.sums[3]));
  });

  it("is bound with its sources: delegates who were told other groups do not find each other", async () => {
    const { parameters } = await Network.of(4, { length: LENGTH });
    const told = (sources: number[]) =>
      combiningParameters(parameters, { cohort: parameters.setting.cohort, sources, multiplicity: 5 }, "44".repeat(32));
    expect(await told([0, 0, 1, 1]).t0()).not.toEqual(await told([0, 1, 0, 1]).t0());
    expect(told([0, 0, 1, 1])).toBeInstanceOf(RoundParameters);
    expect(told([0, 0, 1, 1]).quorum).toBe(3);
  });
});

describe("who speaks for a group", () => {
  const [a, b, c, d] = ["a", "b", "c", "d"].map((letter) => letter.repeat(64)) as [string, string, string, string];
  const spoken = { cohort: [a, b, c, d], sources: [0, 0, 1, 1] };

  it("is its members, and nobody else", () => {
    expect(() => checkOwnGroup(spoken, 0, [a, b])).not.toThrow();
    expect(() => checkOwnGroup(spoken, 0, [a])).toThrow(/bbbbbbbb speaks for group 0 but was not in it/);
    expect(() => checkOwnGroup(spoken, 0, [a, b, c])).toThrow(/cccccccc speaks for group 1 but was in group 0/);
  });
});
