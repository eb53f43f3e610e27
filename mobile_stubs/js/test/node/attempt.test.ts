/** One attempt at a round on a node that stands still, by a clock that the test moves. */

import { afterEach, describe, expect, it, vi } from "vitest";
import { Attempt, type AttemptNeeds } from "../../src/node/attempt.js";
import { RunningClock } from "../../src/node/running-clock.js";
import { Identity } from "../../src/protocol/identity.js";
import { FEDAVG } from "../../src/protocol/server-optimizer.js";
import { modelDigest } from "../../src/secagg/apply.js";
import { RoundParameters } from "../../src/secagg/parameters.js";
import { DEADLINES } from "../network.js";

const BEAT_MS = 250;

/** An attempt of four peers, of which this one has links to all and hears nothing; it has advertised. */
async function attemptAmongDeaf(
  clock: RunningClock,
  contribute: AttemptNeeds["contribute"] = () => new Promise(() => {}),
) {
  const identities = await Promise.all(Array.from({ length: 4 }, () => Identity.generate()));
  const cohort = identities.map(({ peerId }) => peerId).sort();
  const checkpoint = new Float32Array(8);
  const parameters = new RoundParameters({
    runId: "11".repeat(32),
    roundId: "22".repeat(32),
    planDigest: "33".repeat(32),
    modelDigest: await modelDigest(checkpoint),
    cohort,
    minSurvivors: 3,
    ringBits: 20,
    valueBits: 16,
    replicas: 1,
    vectorLength: checkpoint.length + 1,
    clip: 1,
  });
  let begun = () => {};
  const advertised = new Promise<void>((resolve) => (begun = resolve));
  const mesh = {
    clock,
    fingerprint: "00".repeat(32),
    linked: new Set(cohort),
    total: { sent: 0, received: 0 },
    connect: () => Promise.resolve(),
    remoteFingerprint: () => "44".repeat(32),
    send: () => begun(),
  };
  const attempt = await Attempt.create({
    round: 1,
    name: "",
    isGroup: false,
    parameters,
    identity: identities[0] as Identity,
    mesh: mesh as unknown as AttemptNeeds["mesh"],
    deadlines: DEADLINES,
    checkpoint,
    optimizer: FEDAVG,
    parameterCount: checkpoint.length,
    record: () => Promise.resolve(),
    contribute,
    onStage: () => {},
    onRefused: () => {},
  });
  return { attempt, report: attempt.run(), advertised };
}

describe("an attempt whose training failed", () => {
  it("tells its owner what ONNX Runtime said, and others only that it failed", async () => {
    const clock = new RunningClock(() => 0, BEAT_MS);
    const said = "indices element out of data bounds, idx=-974812";
    const { attempt, report } = await attemptAmongDeaf(clock, () => Promise.reject(new Error(said)));
    const { outcome, told } = await report;
    expect(outcome).toMatchObject({ action: "failed", reason: `local training failed: Error: ${said}` });
    expect(told).toBe("this node's training failed");
    attempt.close();
  });

  it("tells others why, where something else failed", async () => {
    const { attempt, report, advertised } = await attemptAmongDeaf(new RunningClock(() => 0, BEAT_MS));
    await advertised;
    attempt.abort("signaling named a later attempt");
    expect((await report).told).toBe("signaling named a later attempt");
    attempt.close();
  });
});

describe("an attempt whose process stood still", () => {
  afterEach(() => vi.useRealTimers());

  it("does not take the time for its stage's: messages of others wait to be read", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const time = { ms: 0 };
    const clock = new RunningClock(() => time.ms, BEAT_MS);
    const { attempt, report, advertised } = await attemptAmongDeaf(clock);
    await advertised;
    const idle = () => (attempt as unknown as { order: Promise<void> }).order;

    await idle();
    time.ms += 600_000;
    await vi.advanceTimersByTimeAsync(DEADLINES.advertise_ms);
    await idle();
    expect(attempt.isEnded).toBe(false);

    while (!attempt.isEnded) {
      time.ms += BEAT_MS;
      clock.now();
      await vi.advanceTimersByTimeAsync(BEAT_MS);
      await idle();
    }
    expect((await report).outcome).toMatchObject({ action: "failed", reason: expect.stringContaining("only 1 peers for the roster") });
    expect(time.ms).toBeLessThan(600_000 + 10_000);
    attempt.close();
  });
});
