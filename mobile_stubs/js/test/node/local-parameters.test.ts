/** A peer's own parameters: put behind the shared ones for graphs, taken off again, and kept with the model. */

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { Membership } from "../../src/node/membership.js";
import type { Runtime, Storage, Tensor } from "../../src/node/platform.js";
import { Trainer } from "../../src/node/trainer.js";
import { FolderStorage } from "../../src/nodejs/storage.js";
import { Plan } from "../../src/plans/plan.js";
import { checkEnvelope, PLAN_TYPE, RUN_TYPE } from "../../src/protocol/envelope.js";
import { Identity } from "../../src/protocol/identity.js";
import { decodeTerms } from "../../src/protocol/terms.js";
import { DATASET, offerBy } from "./tiny-plan.js";
import { MemoryStorage } from "./world.js";

const RUN = "a".repeat(64);
const floats = (values: readonly number[], shape = [values.length]): Tensor => ({ dtype: "float32", shape, data: Float32Array.from(values) });

/** A plan of one shared parameter and a head that starts as (7, 8); each call of `train` adds 1, 10 and 100 to theta. */
async function made(storage: Storage = new MemoryStorage()) {
  const fed: number[][] = [];
  const runtime: Runtime = {
    load: async () => ({
      isOver: false,
      run: async ({ theta, batches }) => {
        const before = [...(theta?.data as Float32Array)];
        const steps = batches?.shape[0] as number;
        fed.push(before);
        return {
          next_theta: floats(before.map((value, i) => value + 10 ** i)),
          next_optimizer_state: floats([]),
          next_buffers: floats([]),
          metrics: floats(Array.from({ length: 2 * steps }, () => 2), [steps, 2]),
        };
      },
      release: async () => {},
    }),
    close: () => {},
  };
  const offered = await offerBy(await Identity.generate(), {}, "tiny", [7, 8]);
  const opened = await checkEnvelope(offered.plan_envelope, PLAN_TYPE, "plan");
  const plan = await Plan.load(opened, async (digest) => offered.blobs.get(digest) as never);
  const terms = decodeTerms((await checkEnvelope(offered.envelope, RUN_TYPE, "terms")).payload);
  const trainer = new Trainer(plan, { ...terms, local: { ...terms.local, batch_size: 4, epochs: 1 } }, DATASET, runtime, new Uint8Array(32));
  const membership = await Membership.restore({ run: RUN, author: "", terms }, plan, trainer, "", storage);
  const train = (model: number) => trainer.update(Float32Array.of(model), "0".repeat(64), new AbortController().signal, () => {});
  return { trainer, membership, train, fed, storage };
}

async function folder(): Promise<{ path: string; storage: FolderStorage }> {
  const path = await mkdtemp(join(tmpdir(), "peerplan-"));
  const storage = await FolderStorage.open(path);
  onTestFinished(async () => {
    storage.close();
    await rm(path, { recursive: true });
  });
  return { path, storage };
}

describe("local parameters", () => {
  it("are behind the shared ones for graphs, and in neither the model nor the update", async () => {
    const { trainer, membership, train, fed } = await made();
    expect(membership.model).toEqual(Float32Array.of(0));
    const { values } = await train(0.5);
    expect(fed).toEqual([[0.5, 7, 8]]);
    expect(values).toEqual(Float32Array.of(1));
    expect(trainer.local).toEqual(Float32Array.of(7, 8));
  });

  it("are as trained once their round went by, and as before where it did not", async () => {
    const { trainer, membership, train, fed } = await made();
    await train(0);
    await train(0); // the round failed, and is tried again from where it began
    await membership.hold(1, Float32Array.of(2));
    expect(trainer.local).toEqual(Float32Array.of(17, 108));
    await train(2);
    await membership.hold(1, Float32Array.of(3)); // the same round again, by another attempt
    expect(trainer.local).toEqual(Float32Array.of(17, 108));
    await membership.hold(2, Float32Array.of(4));
    expect(trainer.local).toEqual(Float32Array.of(27, 208));
    expect(fed).toEqual([[0, 7, 8], [0, 7, 8], [2, 17, 108]]);
  });

  it.each(["memory", "folder"])("are kept with the model in a %s, and taken up again", async (kind) => {
    const storage = kind === "memory" ? new MemoryStorage() : (await folder()).storage;
    const before = await made(storage);
    await before.train(0);
    await before.membership.hold(1, Float32Array.of(5));
    const after = await made(storage);
    expect([after.membership.round, after.membership.model]).toEqual([1, Float32Array.of(5)]);
    expect(after.trainer.local).toEqual(Float32Array.of(17, 108));
    await after.membership.hold(2, Float32Array.of(6)); // fetched: nothing was trained since
    expect(after.trainer.local).toEqual(Float32Array.of(17, 108));
  });

  it("begin as the plan says where what is kept has another length, and the model is taken up", async () => {
    const { path, storage } = await folder();
    const before = await made(storage);
    await before.membership.hold(1, Float32Array.of(5));
    const file = join(path, `${RUN}.model`);
    const [header = ""] = (await readFile(file, "latin1")).split("\n");
    const { local, ...older } = JSON.parse(header);
    expect(local).toBe(8);
    await writeFile(file, Buffer.concat([Buffer.from(`${JSON.stringify(older)}\n`), Buffer.from(Float32Array.of(5).buffer)]));
    const after = await made(storage);
    expect([after.membership.round, after.membership.model]).toEqual([1, Float32Array.of(5)]);
    expect(after.trainer.local).toEqual(Float32Array.of(7, 8));
  });
});
