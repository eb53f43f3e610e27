/** A signed plan of the smallest graphs that pass validation, and terms for it: nobody computes with them here. */

import { concat, toHex, utf8 } from "../../src/protocol/bytes.js";
import { randomBytes, sha256 } from "../../src/protocol/crypto.js";
import { type Envelope, envelopeSchema, PLAN_TYPE, RUN_TYPE, sealEnvelope } from "../../src/protocol/envelope.js";
import type { Identity } from "../../src/protocol/identity.js";
import type { Dataset } from "../../src/plans/data.js";
import { decodeJson } from "../../src/protocol/schema.js";

type Bytes = Uint8Array<ArrayBuffer>;
interface Port {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
}
const DTYPES: Readonly<Record<string, number>> = { float32: 1, int64: 7 };

const vector = (name: string, size: number): Port => ({ name, dtype: "float32", shape: [size] });
const X: Port = { name: "x", dtype: "float32", shape: [-1, 2] };
const BATCHES: Port = { name: "batches", dtype: "int64", shape: [-1, -1] };
const METRICS: Port = { name: "metrics", dtype: "float32", shape: [-1, 2] };

/** One dataset that fits the plan. */
export const DATASET: Dataset = {
  name: "points",
  fields: { x: { dtype: "float32", shape: [2], data: Float32Array.from([1, 2, 3, 4, 5, 6, 7, 8]) } },
};

/** Numbers of a model of the plan: three parameters. */
export const PARAMETERS = 3;

/** What an offer is made of, and the blobs it needs. */
export interface Offered {
  readonly run: string;
  readonly envelope: Envelope;
  readonly plan_envelope: Envelope;
  readonly blobs: ReadonlyMap<string, Bytes>;
  readonly modelDigest: string;
}

/** An offer by `author`; `terms` changes single terms, `name` the plan's name, `head` are the initial local parameters. */
export async function offerBy(
  author: Identity,
  terms: Record<string, unknown> = {},
  name = "tiny",
  head: readonly number[] = [],
): Promise<Offered> {
  const theta = vector("theta", PARAMETERS);
  const [state, buffers] = [vector("optimizer_state", 0), vector("buffers", 0)];
  const frozen = vector("frozen", 2);
  const train = {
    inputs: [theta, state, buffers, frozen, X, BATCHES, vector("learning_rates", -1), { name: "seed", dtype: "int64", shape: [] }],
    outputs: [theta, state, buffers].map((port) => ({ ...port, name: `next_${port.name}` })).concat(METRICS),
  };
  const graph = model(train.inputs, train.outputs);
  const values = new Uint8Array(Float32Array.of(0.5, 0.25).buffer);
  const [digest, frozenDigest] = [toHex(await sha256(graph)), toHex(await sha256(values))];
  const local = new Uint8Array(Float32Array.from(head).buffer);
  const localDigest = toHex(await sha256(local));
  const shared = PARAMETERS - head.length;
  const hasHead = head.length > 0;
  const manifest = {
    format: "peerplan-plan/1",
    name,
    version: "1",
    description: "",
    opset: 18,
    inputs: [{ name: "x", dtype: "float32", shape: [2], below: null }],
    targets: [],
    parameters: [
      { name: "w", shape: [shared], offset: 0 },
      ...(hasHead ? [{ name: "head", shape: [head.length], offset: shared }] : []),
    ],
    local_count: head.length,
    parameter_count: PARAMETERS,
    optimizer_count: 0,
    buffer_count: 0,
    metrics: [{ name: "loss", bound: 10 }],
    training: { optimizer: "sgd", learning_rate: 0.1, batch_size: 2 },
    functions: { train: { graph: digest, ...train } },
    initial: { frozen: frozenDigest, ...(hasHead ? { local: localDigest } : {}) },
    blobs: [
      { digest, size: graph.length, role: "train" },
      { digest: frozenDigest, size: values.length, role: "frozen" },
      ...(hasHead ? [{ digest: localDigest, size: local.length, role: "local" }] : []),
    ],
  };
  const plan = await sealEnvelope(author, PLAN_TYPE, utf8(JSON.stringify(manifest)));
  const document = {
    format: "peerplan-run/1",
    name: "run",
    plan: toHex(await sha256(utf8(JSON.stringify(manifest)))),
    nonce: toHex(randomBytes(32)),
    rounds: 5,
    cohort_size: 5,
    min_cohort: 3,
    min_survivors: 3,
    clip: 1,
    retries: 2,
    evaluate: false,
    local: { batch_size: 2, learning_rate: 0.1 },
    ...terms,
  };
  const text = utf8(JSON.stringify(document));
  const run = await sealEnvelope(author, RUN_TYPE, text);
  const parse = (data: Bytes) => decodeJson(data, envelopeSchema, "envelope", 1 << 22);
  return {
    run: toHex(await sha256(text)),
    envelope: parse(run),
    plan_envelope: parse(plan),
    blobs: new Map([
      [digest, graph],
      [frozenDigest, values],
      [localDigest, local],
    ]),
    modelDigest: toHex(await sha256(new Uint8Array(4 * shared))),
  };
}

// The few protocol buffers of an ONNX model.

function model(inputs: readonly Port[], outputs: readonly Port[]): Bytes {
  const nodes = outputs.map((port, i) => bytesField(1, concat(textField(1, inputs[i % 3]?.name ?? ""), textField(2, port.name), textField(4, "Identity"))));
  const graph = concat(...nodes, textField(2, "g"), ...inputs.map((port) => bytesField(11, valueInfo(port))), ...outputs.map((port) => bytesField(12, valueInfo(port))));
  return concat(intField(1, 8), bytesField(7, graph), bytesField(8, intField(2, 18)));
}

function valueInfo({ name, dtype, shape }: Port): Bytes {
  const dims = shape.map((size) => bytesField(1, size < 0 ? textField(2, "n") : intField(1, size)));
  const tensor = concat(intField(1, DTYPES[dtype] as number), bytesField(2, concat(...dims)));
  return concat(textField(1, name), bytesField(2, bytesField(1, tensor)));
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...varint(Math.floor(value / 128))];
}

function intField(number: number, value: number): Bytes {
  return Uint8Array.from([...varint(number << 3), ...varint(value)]);
}

function bytesField(number: number, data: Uint8Array): Bytes {
  return concat(Uint8Array.from([...varint((number << 3) | 2), ...varint(data.length)]), data);
}

function textField(number: number, text: string): Bytes {
  return bytesField(number, utf8(text));
}
