/** What a node does with its own data in a round: evaluate, train, and make the update that will be masked. */

import { countExamples, type Dataset, tensorsOf } from "../plans/data.js";
import { Executor, roundSeed } from "../plans/executor.js";
import type { Plan } from "../plans/plan.js";
import { type Bytes, fromHex } from "../protocol/bytes.js";
import { dataFields } from "../protocol/manifest.js";
import { composeTail, type Part } from "../protocol/tail.js";
import type { RunTerms } from "../protocol/terms.js";
import type { Model } from "../secagg/apply.js";
import type { LocalUpdate } from "../secagg/quantise.js";
import type { Runtime, Tensor } from "./platform.js";

/**
 * Trains one plan on one dataset; nothing of the data leaves this object but an update and metrics.
 *
 * Models that come in and updates that go out are without the local parameters, which are put behind the shared ones here.
 */
export class Trainer {
  /** This peer's own parameters (spec 05 §2), which nobody else ever sees. */
  local: Model;
  /** What they became in the training that ended last. They are this peer's once its round went by. */
  trained: Model;
  private readonly executor: Executor;
  private readonly training: number;
  private readonly heldOut: number;

  /** @throws UnusableDataError the dataset does not fit the plan. */
  constructor(
    private readonly plan: Plan,
    private readonly terms: RunTerms,
    private readonly dataset: Dataset,
    runtime: Runtime,
    private readonly nodeSeed: Bytes,
  ) {
    this.heldOut = dataset.heldOut ?? 0;
    this.training = countExamples(dataset) - this.heldOut;
    this.executor = new Executor(plan, runtime);
    this.local = this.trained = plan.initial("local");
    tensorsOf(dataset, dataFields(plan.manifest), 0, 1); // fails here rather than in the first round
  }

  /**
   * Train from a checkpoint and give the difference with its weight and metrics.
   *
   * @throws ExecutionError, UnusableDataError training failed or diverged.
   */
  async update(
    checkpoint: Model,
    roundId: string,
    signal: AbortSignal,
    onProgress: (done: number, total: number) => void,
  ): Promise<LocalUpdate> {
    const { local } = this.terms;
    const model = this.whole(checkpoint);
    const seed = await roundSeed(this.nodeSeed, fromHex(roundId));
    const { start, count } = this.window(seed);
    const data = this.tensors(start, start + count);
    const result = await this.executor.train(model, data, count, {
      batchSize: local.batch_size,
      epochs: local.epochs,
      learningRate: local.learning_rate,
      seed,
      signal,
      onProgress,
    });
    const heldOut = this.terms.evaluate && this.heldOut > 0 ? await this.evaluateHeldOut(model, signal) : null;
    const { sharedCount } = this.plan;
    const size = this.local.length;
    this.trained = result.model.slice(sharedCount, sharedCount + size);
    const values = checkpoint.map((value, i) => (result.model[i < sharedCount ? i : i + size] as number) - value);
    return { values, groups: composeTail(this.plan.manifest, this.terms, result.part, heldOut) };
  }

  /** The model's outputs for inputs of the owner, on this device. */
  predict(model: Model, inputs: Readonly<Record<string, Tensor>>): Promise<Tensor> {
    return this.executor.predict(this.whole(model), inputs);
  }

  /** Give the memory of loaded graphs back. */
  close(): Promise<void> {
    return this.executor.close();
  }

  /** A model with this peer's own parameters in their place: what graphs get. */
  private whole(model: Model): Model {
    const { sharedCount } = this.plan;
    const out = new Float32Array(model.length + this.local.length);
    out.set(model.subarray(0, sharedCount));
    out.set(this.local, sharedCount);
    out.set(model.subarray(sharedCount), sharedCount + this.local.length);
    return out;
  }

  private evaluateHeldOut(model: Model, signal: AbortSignal): Promise<Part> {
    const data = this.tensors(this.training, this.training + this.heldOut);
    return this.executor.evaluate(model, data, this.heldOut, signal);
  }

  /** At most `max_examples` examples: a stretch of them from a place that the round's seed draws. */
  private window(seed: Bytes): { start: number; count: number } {
    const count = Math.min(this.training, this.terms.local.max_examples);
    const places = this.training - count + 1;
    const draw = new DataView(seed.buffer, seed.byteOffset).getBigUint64(0, true);
    return { start: Number(draw % BigInt(places)), count };
  }

  private tensors(start: number, end: number): Record<string, Tensor> {
    return tensorsOf(this.dataset, dataFields(this.plan.manifest), start, end);
  }
}
