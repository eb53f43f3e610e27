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

/** Trains one plan on one dataset; nothing of the data leaves this object but an update and metrics. */
export class Trainer {
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
    const seed = await roundSeed(this.nodeSeed, fromHex(roundId));
    const { start, count } = this.window(seed);
    const data = this.tensors(start, start + count);
    const result = await this.executor.train(checkpoint, data, count, {
      batchSize: local.batch_size,
      epochs: local.epochs,
      learningRate: local.learning_rate,
      seed,
      signal,
      onProgress,
    });
    const heldOut = this.terms.evaluate && this.heldOut > 0 ? await this.evaluateHeldOut(checkpoint, signal) : null;
    const values = result.model.map((value, i) => value - (checkpoint[i] as number));
    return { values, groups: composeTail(this.plan.manifest, this.terms, result.part, heldOut) };
  }

  /** The model's outputs for inputs of the owner, on this device. */
  predict(model: Model, inputs: Readonly<Record<string, Tensor>>): Promise<Tensor> {
    return this.executor.predict(model, inputs);
  }

  /** Give the memory of loaded graphs back. */
  close(): Promise<void> {
    return this.executor.close();
  }

  private evaluateHeldOut(checkpoint: Model, signal: AbortSignal): Promise<Part> {
    const data = this.tensors(this.training, this.training + this.heldOut);
    return this.executor.evaluate(checkpoint, data, this.heldOut, signal);
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
