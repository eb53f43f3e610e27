import { describe, expect, it } from "vitest";
import { ExecutionError } from "../../src/node/errors.js";
import type { Runtime, Tensor } from "../../src/node/platform.js";
import { Executor } from "../../src/plans/executor.js";
import { Plan } from "../../src/plans/plan.js";
import { checkEnvelope, PLAN_TYPE } from "../../src/protocol/envelope.js";
import { Identity } from "../../src/protocol/identity.js";
import { DATASET, offerBy, PARAMETERS } from "./tiny-plan.js";

type Tensors = Readonly<Record<string, Tensor>>;
const X = { dtype: "float32", shape: [4, 2], data: DATASET.fields["x"]?.data } as Tensor;
const floats = (values: readonly number[], shape = [values.length]): Tensor => ({ dtype: "float32", shape, data: Float32Array.from(values) });

/** What the tiny plan gives back for a call of so many steps. */
function after(steps: number, changes: Record<string, Tensor> = {}): Tensors {
  return {
    next_theta: floats([1, 2, 3]),
    next_optimizer_state: floats([]),
    next_buffers: floats([]),
    metrics: floats(Array.from({ length: 2 * steps }, () => 2), [steps, 2]),
    ...changes,
  };
}

/** Trains two epochs of two steps; gives what each call was fed. */
async function train(answer: (steps: number) => Tensors): Promise<{ fed: Tensors[] }> {
  const fed: Tensors[] = [];
  const session = {
    isOver: false,
    run: async (feeds: Tensors) => {
      fed.push(feeds);
      return answer((feeds["batches"] as Tensor).shape[0] as number);
    },
    release: async () => {},
  };
  const runtime: Runtime = { load: async () => session, close: () => {} };
  const { plan_envelope: envelope, blobs } = await offerBy(await Identity.generate());
  const opened = await checkEnvelope(envelope, PLAN_TYPE, "plan");
  const plan = await Plan.load(opened, async (digest) => blobs.get(digest) as never);
  await new Executor(plan, runtime).train(new Float32Array(PARAMETERS), { x: X }, 4, {
    batchSize: 2,
    epochs: 2,
    learningRate: 0.1,
    seed: new Uint8Array(32),
    signal: new AbortController().signal,
  });
  return { fed };
}

describe("a call of a plan", () => {
  it("gets the plan's frozen values, the vectors of the call before, and a seed of its own", async () => {
    const { fed } = await train((steps) => after(steps));
    expect(fed.length).toBeGreaterThanOrEqual(2);
    for (const feeds of fed) expect(feeds["frozen"]).toEqual(floats([0.5, 0.25]));
    expect(fed.map((feeds) => [...(feeds["theta"]?.data as Float32Array)])).toEqual([[0, 0, 0], ...fed.slice(1).map(() => [1, 2, 3])]);
    expect(new Set(fed.map((feeds) => (feeds["seed"]?.data as BigInt64Array)[0])).size).toBe(fed.length);
  });

  const wrong: [string, Record<string, Tensor>, RegExp][] = [
    ["too few parameters", { next_theta: floats([1]) }, /next_theta has 1 numbers, expected 3/],
    ["buffers the plan has not", { next_buffers: floats([1]) }, /next_buffers has 1 numbers, expected 0/],
    ["parameters that are not finite", { next_theta: floats([1, Number.NaN, 3]) }, /diverged within \d of 4 steps: next_theta/],
    ["a metric that is not finite", { metrics: floats([2, Infinity], [1, 2]) }, /diverged/],
    ["too many rows of metrics", { metrics: floats([2, 2, 2, 2, 2, 2], [3, 2]) }, /metrics has 6 numbers, expected 1 rows of 2/],
    ["whole numbers for parameters", { next_theta: { dtype: "int64", shape: [3], data: new BigInt64Array(3) } }, /no float32/],
  ];
  it.each(wrong)("that gives back %s ends training by name", async (_, changes, words) => {
    const trained = train((steps) => after(steps, changes));
    await expect(trained).rejects.toThrow(ExecutionError);
    await expect(trained).rejects.toThrow(words);
  });
});
