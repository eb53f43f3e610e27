/** Runs a plan's functions with ONNX Runtime: stretches of training, evaluation and prediction (spec 05 §4). */

import { ExecutionError } from "../node/errors.js";
import type { Runtime, Session, Tensor } from "../node/platform.js";
import { type Bytes, concat, utf8 } from "../protocol/bytes.js";
import { counterEncrypt, counterKey, sha256 } from "../protocol/crypto.js";
import { frozenCount, type VectorRole, vectorSize } from "../protocol/manifest.js";
import type { Part } from "../protocol/tail.js";
import type { Model } from "../secagg/apply.js";
import { countInputs, newArray } from "./data.js";
import type { Plan } from "./plan.js";

const EVALUATE_BATCH = 256;
const EVALUATE_ROWS = 16;
const PREDICT_BATCH = 256;
/** How long one call may keep a thread, so that links stay alive where there is no other thread. */
const CALL_MS = 150;
const MAX_STEPS_PER_CALL = 64;

type Kind = "train" | "evaluate" | "predict";

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
  private readonly sessions = new Map<Kind, Promise<Session>>();
  private readonly frozen: Readonly<Record<string, Tensor>>;

  constructor(
    private readonly plan: Plan,
    private readonly runtime: Runtime,
  ) {
    this.frozen = frozenCount(plan.manifest) === 0 ? {} : { frozen: vector(plan.initial("frozen")) };
  }

  /**
   * Train from a flat model, of a whole theta and buffers, for whole epochs; the last batch of an epoch may be short.
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
          seed: { dtype: "int64", data: BigInt64Array.of((await random.seed())), shape: [] },
        });
        steps = nextSteps(stretch, performance.now() - begun);
        at += stretch;
        done += stretch;
        theta = this.next(out, "theta", done, total);
        state = this.next(out, "optimizer_state", done, total);
        buffers = this.next(out, "buffers", done, total);
        this.add(sums, floats(out, "metrics"), stretch);
        options.onProgress?.(done, total);
        await breathe();
      }
    }
    const trained = new Float32Array(model.length);
    trained.set(theta);
    trained.set(buffers, cut);
    return { model: trained, part: { examples, means: this.means(sums) } };
  }

  /**
   * Metrics of a model over `examples` examples of `data`.
   *
   * @throws ExecutionError ONNX Runtime failed, or a metric is not finite.
   */
  async evaluate(
    model: Model,
    data: Readonly<Record<string, Tensor>>,
    examples: number,
    signal?: AbortSignal,
  ): Promise<Part> {
    const cut = this.plan.manifest.parameter_count;
    const sums = this.nothing();
    const rows = batches(Uint32Array.from({ length: examples }, (_, i) => i), EVALUATE_BATCH);
    for (let at = 0; at < rows.count; at += EVALUATE_ROWS) {
      signal?.throwIfAborted();
      const stretch = Math.min(EVALUATE_ROWS, rows.count - at);
      const out = await this.call("evaluate", {
        theta: vector(model.slice(0, cut)),
        buffers: vector(model.slice(cut)),
        ...data,
        batches: rows.tensor(at, stretch),
      });
      this.add(sums, floats(out, "metrics"), stretch);
      await breathe();
    }
    return { examples, means: this.means(sums) };
  }

  /**
   * The model's outputs for all examples of `inputs`.
   *
   * @throws UnusableDataError inputs that do not fit the plan.
   * @throws ExecutionError ONNX Runtime failed.
   */
  async predict(model: Model, inputs: Readonly<Record<string, Tensor>>): Promise<Tensor> {
    const { manifest } = this.plan;
    const examples = countInputs(inputs, manifest.inputs, `plan ${manifest.name}, predict`);
    const vectors = { theta: vector(model.slice(0, manifest.parameter_count)), buffers: vector(model.slice(manifest.parameter_count)) };
    const parts: Tensor[] = [];
    for (let at = 0; at < examples; at += PREDICT_BATCH) {
      const end = Math.min(examples, at + PREDICT_BATCH);
      const rows = manifest.inputs.map(({ name }) => [name, stretchOf(inputs[name] as Tensor, at, end)] as const);
      const [output] = Object.values(await this.call("predict", { ...vectors, ...Object.fromEntries(rows) }));
      if (output?.shape[0] !== end - at) {
        throw new ExecutionError(`plan ${manifest.name}, predict: expected ${end - at} outputs, got [${output?.shape}]`);
      }
      parts.push(output);
    }
    return joined(parts);
  }

  /** Give the memory of loaded graphs back. */
  async close(): Promise<void> {
    const loaded = [...this.sessions.values()];
    this.sessions.clear();
    await Promise.allSettled(loaded.map(async (session) => (await session).release())); // one that never loaded is gone already
  }

  private async call(kind: Kind, feeds: Readonly<Record<string, Tensor>>): Promise<Readonly<Record<string, Tensor>>> {
    try {
      let session = await this.sessions.get(kind);
      if (session === undefined || session.isOver) {
        const loading = this.runtime.load(this.plan.graph(kind));
        this.sessions.set(kind, loading);
        session = await loading;
      }
      return await session.run({ ...feeds, ...this.frozen });
    } catch (error) {
      this.sessions.delete(kind); // its worker may be gone; the next call loads it anew
      throw new ExecutionError(`plan ${this.plan.manifest.name}, ${kind}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  /** A vector after a stretch of steps, checked before the next stretch goes on from it. */
  private next(out: Readonly<Record<string, Tensor>>, role: VectorRole, done: number, total: number): Model {
    const { manifest } = this.plan;
    const values = floats(out, `next_${role}`);
    const expected = role === "theta" ? manifest.parameter_count : vectorSize(manifest, role);
    if (values.length !== expected) {
      throw new ExecutionError(`plan ${manifest.name}, train: next_${role} has ${values.length} numbers, expected ${expected}`);
    }
    if (values.every(Number.isFinite)) return values;
    throw new ExecutionError(
      `plan ${manifest.name}: training diverged within ${done} of ${total} steps: next_${role} holds NaN or infinity`,
    );
  }

  private nothing(): Sums {
    return { examples: 0, byMetric: this.plan.manifest.metrics.map(() => 0) };
  }

  /** Rows of a metrics table: the number of examples, then each metric's sum over them. */
  private add(sums: Sums, table: Float32Array, rows: number): void {
    const width = 1 + sums.byMetric.length;
    if (table.length !== rows * width) {
      throw new ExecutionError(`plan ${this.plan.manifest.name}: metrics has ${table.length} numbers, expected ${rows} rows of ${width}`);
    }
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

/** Examples `start` to `end` of a tensor. */
function stretchOf({ dtype, data, shape }: Tensor, start: number, end: number): Tensor {
  const [count = 1, ...rest] = shape;
  const size = data.length / count;
  return { dtype, data: data.subarray(start * size, end * size), shape: [end - start, ...rest] };
}

/** Tensors of one dtype and shape one after the other along their first axis. */
function joined(parts: readonly Tensor[]): Tensor {
  const [first] = parts;
  if (first === undefined) throw new ExecutionError("there are no inputs to predict from");
  if (parts.length === 1) return first;
  const rows = parts.reduce((sum, { shape }) => sum + (shape[0] ?? 0), 0);
  const length = parts.reduce((sum, { data }) => sum + data.length, 0);
  const data = newArray(first.dtype, length);
  let at = 0;
  for (const part of parts) {
    (data as Float32Array).set(part.data as Float32Array, at);
    at += part.data.length;
  }
  return { dtype: first.dtype, data, shape: [rows, ...first.shape.slice(1)] };
}

function nextSteps(steps: number, ms: number): number {
  return Math.max(1, Math.min(MAX_STEPS_PER_CALL, Math.floor((steps * CALL_MS) / Math.max(ms, 0.1))));
}

/** Let timers, sockets and links have their turn. */
function breathe(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
