/** Runs a plan's functions with ONNX Runtime: stretches of training, evaluation and prediction (spec 05 §4). */

import { ExecutionError } from "../node/errors.js";
import type { Runtime, Session, Tensor } from "../node/platform.js";
import { type Bytes, concat, utf8 } from "../protocol/bytes.js";
import { counterEncrypt, counterKey, sha256 } from "../protocol/crypto.js";
import { dataFields } from "../protocol/manifest.js";
import type { Part } from "../protocol/tail.js";
import type { Model } from "../secagg/apply.js";
import type { Plan } from "./plan.js";

const EVALUATE_BATCH = 256;
const EVALUATE_ROWS = 16;
/** How long one call may keep a thread, so that links stay alive where there is no other thread. */
const CALL_MS = 150;
const MAX_STEPS_PER_CALL = 64;

/** What local training is asked for. */
export interface TrainingOptions {
  readonly batchSize: number;
  readonly epochs: number;
  readonly learningRate: number;
  /** 32 secret bytes that fix the order of examples and what the graph draws. */
  readonly seed: Bytes;
  readonly signal: AbortSignal;
  readonly onProgress?: (done: number, total: number) => void;
}

/** Sums over examples, by metric in the manifest's order. */
interface Sums {
  examples: number;
  readonly byMetric: number[];
}

/** Sessions of one plan, made when first needed and kept. One call at a time. */
export class Executor {
  private readonly sessions = new Map<string, Promise<Session>>();

  constructor(
    private readonly plan: Plan,
    private readonly runtime: Runtime,
  ) {}

  /**
   * Train from a flat model for whole epochs; the last batch of an epoch may be short.
   *
   * @param data tensors of every field the plan reads, `examples` long.
   * @throws ExecutionError ONNX Runtime failed, or training diverged.
   */
  async train(
    model: Model,
    data: Readonly<Record<string, Tensor>>,
    examples: number,
    options: TrainingOptions,
  ): Promise<{ model: Model; part: Part }> {
    const { parameter_count: cut } = this.plan.manifest;
    let theta: Model = model.slice(0, cut);
    let buffers: Model = model.slice(cut);
    let state = this.plan.initial("optimizer_state");
    const sums = this.nothing();
    const total = options.epochs * Math.ceil(examples / options.batchSize);
    const random = await RandomWords.of(options.seed);
    let done = 0;
    let steps = 1;
    for (let epoch = 0; epoch < options.epochs; epoch++) {
      const order = await random.permutation(examples);
      const rows = batches(order, options.batchSize);
      for (let at = 0; at < rows.count; ) {
        options.signal.throwIfAborted();
        const stretch = Math.min(steps, rows.count - at);
        const begun = performance.now();
        const out = await this.call("train", {
          theta: vector(theta),
          optimizer_state: vector(state),
          buffers: vector(buffers),
          ...data,
          batches: rows.tensor(at, stretch),
          learning_rates: vector(new Float32Array(stretch).fill(options.learningRate)),
          seed: { dtype: "int64", data: BigInt64Array.of((await random.seed()) as bigint), shape: [] },
        });
        steps = nextSteps(stretch, performance.now() - begun);
        theta = floats(out, "next_theta");
        state = floats(out, "next_optimizer_state");
        buffers = floats(out, "next_buffers");
        this.add(sums, floats(out, "metrics"));
        at += stretch;
        done += stretch;
        options.onProgress?.(done, total);
        await breathe();
      }
    }
    const trained = new Float32Array(model.length);
    trained.set(theta);
    trained.set(buffers, cut);
    if (!trained.every(Number.isFinite)) throw new ExecutionError(`plan ${this.plan.manifest.name}: training diverged`);
    return { model: trained, part: { examples, means: this.means(sums) } };
  }

  /** Metrics of a model over `examples` examples of `data`. */
  async evaluate(model: Model, data: Readonly<Record<string, Tensor>>, examples: number): Promise<Part> {
    const cut = this.plan.manifest.parameter_count;
    const sums = this.nothing();
    const rows = batches(Uint32Array.from({ length: examples }, (_, i) => i), EVALUATE_BATCH);
    for (let at = 0; at < rows.count; at += EVALUATE_ROWS) {
      const out = await this.call("evaluate", {
        theta: vector(model.slice(0, cut)),
        buffers: vector(model.slice(cut)),
        ...data,
        batches: rows.tensor(at, Math.min(EVALUATE_ROWS, rows.count - at)),
      });
      this.add(sums, floats(out, "metrics"));
      await breathe();
    }
    return { examples, means: this.means(sums) };
  }

  /** The model's outputs for all examples of `inputs`. */
  async predict(model: Model, inputs: Readonly<Record<string, Tensor>>): Promise<Tensor> {
    const cut = this.plan.manifest.parameter_count;
    const feeds = { theta: vector(model.slice(0, cut)), buffers: vector(model.slice(cut)), ...inputs };
    const [output] = Object.values(await this.call("predict", feeds));
    if (output === undefined) throw new ExecutionError(`plan ${this.plan.manifest.name}, predict: no output came`);
    return output;
  }

  /** Names of the fields that training reads. */
  get fields(): readonly string[] {
    return dataFields(this.plan.manifest).map((field) => field.name);
  }

  private async call(
    kind: "train" | "evaluate" | "predict",
    feeds: Readonly<Record<string, Tensor>>,
  ): Promise<Readonly<Record<string, Tensor>>> {
    try {
      let session = this.sessions.get(kind);
      if (session === undefined) this.sessions.set(kind, (session = this.runtime.load(this.plan.graph(kind))));
      return await (await session).run(feeds);
    } catch (error) {
      throw new ExecutionError(`plan ${this.plan.manifest.name}, ${kind}: ${String(error)}`);
    }
  }

  private nothing(): Sums {
    return { examples: 0, byMetric: this.plan.manifest.metrics.map(() => 0) };
  }

  /** Rows of a metrics table: the number of examples, then each metric's sum over them. */
  private add(sums: Sums, table: Float32Array): void {
    const width = 1 + sums.byMetric.length;
    table.forEach((value, i) => {
      if (!Number.isFinite(value)) {
        throw new ExecutionError(`plan ${this.plan.manifest.name}: training diverged: a metric is NaN or infinite`);
      }
      if (i % width === 0) sums.examples += Math.round(value);
      else sums.byMetric[(i % width) - 1] = (sums.byMetric[(i % width) - 1] as number) + value;
    });
  }

  private means(sums: Sums): Record<string, number> {
    const { metrics } = this.plan.manifest;
    return Object.fromEntries(metrics.map((metric, i) => [metric.name, (sums.byMetric[i] as number) / sums.examples]));
  }
}

/** The seed of one round's training: reproducible for who knows the node's seed, and nobody else. */
export function roundSeed(nodeSeed: Bytes, roundId: Bytes): Promise<Bytes> {
  return sha256(concat(utf8("peerplan/1/shuffle"), nodeSeed, roundId));
}

/** Random integers from an AES-256-CTR keystream. */
class RandomWords {
  private block = 0;

  private constructor(private readonly key: CryptoKey) {}

  static async of(seed: Bytes): Promise<RandomWords> {
    return new RandomWords(await counterKey(seed));
  }

  /** A uniform order of 0 to count - 1: indexes sorted by 64 random bits each. */
  async permutation(count: number): Promise<Uint32Array> {
    const keys = new BigUint64Array(await this.take(count * 8), 0, count);
    return Uint32Array.from({ length: count }, (_, i) => i).sort((a, b) => {
      const [x, y] = [keys[a] as bigint, keys[b] as bigint];
      return x < y ? -1 : x > y ? 1 : a - b;
    });
  }

  /** 63 random bits. */
  async seed(): Promise<bigint> {
    return (new BigUint64Array(await this.take(8), 0, 1)[0] as bigint) >> 1n;
  }

  private async take(bytes: number): Promise<ArrayBuffer> {
    const padded = Math.ceil(bytes / 16) * 16;
    const out = await counterEncrypt(this.key, this.block, new Uint8Array(padded));
    this.block += padded / 16;
    return out;
  }
}

/** Indexes as rows of a batch each; -1 fills the last row. */
function batches(order: Uint32Array, batchSize: number) {
  const width = Math.min(batchSize, order.length);
  const count = Math.ceil(order.length / batchSize);
  return {
    count,
    tensor(at: number, rows: number): Tensor {
      const data = new BigInt64Array(rows * width).fill(-1n);
      for (let i = 0; i < data.length && at * width + i < order.length; i++) {
        data[i] = BigInt(order[at * width + i] as number);
      }
      return { dtype: "int64", data, shape: [rows, width] };
    },
  };
}

function vector(data: Float32Array): Tensor {
  return { dtype: "float32", data, shape: [data.length] };
}

function floats(out: Readonly<Record<string, Tensor>>, name: string): Model {
  const data = out[name]?.data;
  if (!(data instanceof Float32Array)) throw new ExecutionError(`output ${name} is no float32 tensor`);
  return data as Model;
}

function nextSteps(steps: number, ms: number): number {
  return Math.max(1, Math.min(MAX_STEPS_PER_CALL, Math.floor((steps * CALL_MS) / Math.max(ms, 0.1))));
}

/** Let timers, sockets and links have their turn. */
function breathe(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
