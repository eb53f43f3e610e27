/** The plan manifest (spec 05): what a plan reads, holds and runs. The author signs its exact bytes. */

import type { Bytes } from "./bytes.js";
import { ManifestError } from "./errors.js";
import { decodeJson, hex64, integer, list, mapOf, name, nullable, number, type Of, oneOf, optional, record, text } from "./schema.js";

export const MAX_MANIFEST_BYTES = 2 << 20;
const MAX_VECTOR = 2 ** 28;
const MAX_LOCAL = 2 ** 26;
const MAX_BLOB = 2 ** 32;

const count = integer(0, MAX_VECTOR);
const shape = list(integer(-1, MAX_VECTOR), { most: 8 });
const dtype = oneOf("float32", "float64", "int32", "int64", "uint8", "bool");

const dataFieldSchema = record({ name, dtype, shape, below: optional(nullable(integer(1, MAX_VECTOR)), null) });
/** One field of a dataset: `shape` is that of one example; -1 is any length. `below` promises 0 <= value < below. */
export type DataField = Of<typeof dataFieldSchema>;

export const datasetSchema = record({
  name,
  fields: list(dataFieldSchema, { most: 64 }),
  examples: optional(nullable(count), null),
});
/** What a node advertises of one dataset; `examples` only where the owner allows it. */
export type DatasetSchema = Of<typeof datasetSchema>;

const portSchema = record({ name, dtype, shape });
/** One input or output of a graph; -1 is a dimension only known at run time. */
export type Port = Of<typeof portSchema>;

const functionSchema = record({
  graph: hex64,
  inputs: list(portSchema, { most: 64 }),
  outputs: list(portSchema, { most: 64 }),
});
/** An ONNX graph: the blob that holds it and its exact ports. */
export type PlanFunction = Of<typeof functionSchema>;

const manifestSchema = record({
  format: optional(oneOf("peerplan-plan/1"), "peerplan-plan/1"),
  name,
  version: name,
  description: optional(text(4096), ""),
  opset: integer(17, 22),
  inputs: list(dataFieldSchema, { most: 64 }),
  targets: list(dataFieldSchema, { most: 64 }),
  parameters: list(record({ name: text(MAX_MANIFEST_BYTES), shape, offset: count }), { most: 65_536 }),
  parameter_count: count,
  optimizer_count: count,
  buffer_count: count,
  local_count: optional(integer(0, MAX_LOCAL), 0),
  metrics: list(record({ name, bound: number({ above: 0, most: 1e6 }) }), { most: 32 }),
  training: nullable(
    record({ optimizer: name, learning_rate: number({ above: 0, most: 1e3 }), batch_size: integer(1, 1 << 20) }),
  ),
  functions: mapOf(["train", "evaluate", "predict", "query"], functionSchema),
  initial: mapOf(["theta", "local", "optimizer_state", "buffers", "frozen"], hex64),
  blobs: list(record({ digest: hex64, size: integer(0, MAX_BLOB), role: name }), { most: 256 }),
});
/** Everything a node must know to decide on a plan and run it; fields as in schemas/plan-manifest.schema.json. */
export type PlanManifest = Of<typeof manifestSchema>;
/** A listed blob. */
export type Blob = PlanManifest["blobs"][number];
/**
 * The flat vectors of a plan; `frozen` is what every graph reads and no run changes, `local` the end of theta that each
 * peer trains for itself; both are part of no model (spec 05 §2).
 */
export type VectorRole = "theta" | "local" | "optimizer_state" | "buffers" | "frozen";

/** Everything the plan reads of a dataset: inputs, then targets. */
export function dataFields(manifest: PlanManifest): readonly DataField[] {
  return [...manifest.inputs, ...manifest.targets];
}

/** Elements of one of the plan's vectors. */
export function vectorSize(manifest: PlanManifest, role: VectorRole): number {
  if (role === "theta") return manifest.parameter_count - manifest.local_count;
  if (role === "local") return manifest.local_count;
  if (role === "frozen") return frozenCount(manifest);
  return role === "buffers" ? manifest.buffer_count : manifest.optimizer_count;
}

/** Length of the frozen vector; 0 where the plan has none. Its length stands nowhere else: the blob is the vector. */
export function frozenCount(manifest: PlanManifest): number {
  const digest = manifest.initial.frozen;
  return digest === undefined ? 0 : blobOf(manifest, digest).size / 4;
}

/**
 * The listed blob of a digest.
 *
 * @throws ManifestError there is none.
 */
export function blobOf(manifest: PlanManifest, digest: string): Blob {
  const found = manifest.blobs.find((blob) => blob.digest === digest);
  if (found === undefined) throw new ManifestError(`plan ${manifest.name}: no blob ${digest.slice(0, 12)} is listed`);
  return found;
}

/**
 * Parse a manifest and check that it agrees with itself.
 *
 * @throws EncodingError, LimitExceededError the bytes are no manifest.
 * @throws ManifestError a listed blob is missing, vectors overlap or names repeat.
 */
export function decodeManifest(data: Bytes): PlanManifest {
  const manifest = decodeJson(data, manifestSchema, "plan manifest", MAX_MANIFEST_BYTES);
  const what = `plan ${manifest.name}`;
  checkBlobs(manifest, what);
  checkParameters(manifest, what);
  const names = dataFields(manifest).map((field) => field.name);
  if (new Set(names).size !== names.length) throw new ManifestError(`${what}: data fields repeat a name`);
  if (manifest.functions.train !== undefined && manifest.training === null) {
    throw new ManifestError(`${what}: has a train function but no training defaults`);
  }
  return manifest;
}

function checkBlobs(manifest: PlanManifest, what: string): void {
  const digests = manifest.blobs.map((blob) => blob.digest);
  if (new Set(digests).size !== digests.length) throw new ManifestError(`${what}: a blob is listed twice`);
  for (const item of Object.values(manifest.functions)) blobOf(manifest, item.graph);
  for (const [role, digest] of Object.entries(manifest.initial)) {
    const { size } = blobOf(manifest, digest);
    if (role === "frozen") {
      if (size === 0 || size % 4 !== 0 || size > 4 * MAX_VECTOR) {
        throw new ManifestError(`${what}: frozen has ${size} bytes, expected 4 per number`);
      }
      continue;
    }
    const expected = 4 * vectorSize(manifest, role as VectorRole);
    if (size !== expected) throw new ManifestError(`${what}: initial ${role} has ${size} bytes, expected ${expected}`);
  }
}

function checkParameters(manifest: PlanManifest, what: string): void {
  let at = 0;
  for (const tensor of manifest.parameters) {
    if (tensor.shape.some((size) => size < 0)) throw new ManifestError(`${what}: parameter ${tensor.name} has an open dimension`);
    if (tensor.offset !== at) throw new ManifestError(`${what}: parameter ${tensor.name} at ${tensor.offset}, expected ${at}`);
    at += tensor.shape.reduce((product, size) => product * size, 1);
  }
  if (at !== manifest.parameter_count) {
    throw new ManifestError(`${what}: parameters end at ${at}, expected ${manifest.parameter_count}`);
  }
  const shared = manifest.parameter_count - manifest.local_count;
  if (manifest.local_count > 0 && !manifest.parameters.some(({ offset }) => offset > 0 && offset === shared)) {
    throw new ManifestError(
      `${what}: ${manifest.local_count} of ${manifest.parameter_count} parameters are local, ` +
        "expected whole tensors at the end, and one before them",
    );
  }
}

/** Null where a dataset fits a plan; otherwise one sentence naming both sides. */
export function explainMisfit(manifest: PlanManifest, dataset: DatasetSchema): string | null {
  for (const want of dataFields(manifest)) {
    const got = dataset.fields.find((field) => field.name === want.name);
    if (got === undefined) {
      const has = dataset.fields.map((field) => field.name).join(", ") || "no fields";
      return `plan ${manifest.name} reads field ${want.name}; dataset ${dataset.name} has ${has}`;
    }
    const fits = got.shape.length === want.shape.length && want.shape.every((size, i) => size === -1 || size === got.shape[i]);
    if (got.dtype !== want.dtype || !fits) {
      return (
        `plan ${manifest.name} reads ${want.name} as ${want.dtype}[${want.shape}]; ` +
        `dataset ${dataset.name} has ${got.dtype}[${got.shape}]`
      );
    }
  }
  return null;
}
