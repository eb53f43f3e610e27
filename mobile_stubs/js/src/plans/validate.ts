/**
 * What a node runs (spec 05 §5): standard operators from one list, bounded sizes, no files, the declared ports.
 *
 * Every byte is treated as hostile; only `UnsafePlanError` comes out.
 */

import { UnsafePlanError } from "../node/errors.js";
import type { Bytes } from "../protocol/bytes.js";
import { ProtocolError } from "../protocol/errors.js";
import { dataFields, frozenCount, type PlanFunction, type PlanManifest, type Port } from "../protocol/manifest.js";
import { ALLOWED } from "./operators.js";
import { Fields } from "./protobuf.js";

const MAX_GRAPH_BYTES = 256 << 20;
const MAX_CONSTANT_BYTES = 256 << 20;
const MAX_NODES = 200_000;
const MAX_DEPTH = 4;
const MAX_RANK = 8;
const IR_VERSIONS = { least: 7, most: 10 };
const ITEM_BYTES: ReadonlyMap<number, number> = new Map([[1, 4], [2, 1], [6, 4], [7, 8], [9, 1], [11, 8]]);
const ELEMENT_TYPES = { float32: 1, uint8: 2, int32: 6, int64: 7, bool: 9, float64: 11 } as const;
/** FLOAT, INT, STRING, TENSOR, GRAPH, FLOATS, INTS, STRINGS. */
const ATTRIBUTE_TYPES: ReadonlySet<number> = new Set([1, 2, 3, 4, 5, 6, 7, 8]);
const TENSOR_ATTRIBUTE = 4;
const GRAPH_ATTRIBUTE = 5;

/**
 * Check one function of a plan against what a node runs.
 *
 * @throws UnsafePlanError the first rule broken; names the function, the rule and what was found.
 */
export function validateFunction(manifest: PlanManifest, kind: string, declared: PlanFunction, graph: Bytes): void {
  const what = `plan ${manifest.name}, function ${kind}`;
  try {
    checkDeclared(manifest, kind, declared, what);
    checkGraph(graph, manifest.opset, declared, what);
  } catch (error) {
    if (error instanceof ProtocolError) throw new UnsafePlanError(`${what}: ${error.message}`);
    throw error;
  }
}

function checkGraph(data: Bytes, opset: number, declared: PlanFunction, what: string): void {
  if (data.length > MAX_GRAPH_BYTES) refuse(what, `${data.length} bytes of graph, at most ${MAX_GRAPH_BYTES} are run`);
  const model = new Fields(data);
  const version = model.integer(1);
  if (version < IR_VERSIONS.least || version > IR_VERSIONS.most) {
    refuse(what, `IR version ${version}, expected ${IR_VERSIONS.least} to ${IR_VERSIONS.most}`);
  }
  const imports = model.messages(8).map((entry) => `${entry.text(1)} ${entry.integer(2)}`);
  if (imports.length !== 1 || imports[0] !== ` ${opset}`) refuse(what, `opset imports ${imports.join(", ")}, expected ${opset}`);
  if (model.has(25) || model.has(20)) refuse(what, "model-local functions and training_info are not run");
  const graph = model.message(7);
  if (graph === null) refuse(what, "there is no graph");
  new Rules(what).check(graph, 1);
  checkPorts(graph.messages(11), declared.inputs, `${what}: input`);
  checkPorts(graph.messages(12), declared.outputs, `${what}: output`);
}

/** The rules for one graph and those inside it, with one count of nodes for all. */
class Rules {
  private nodes = 0;

  constructor(private readonly what: string) {}

  /** `depth` counts the graphs around it, itself included. */
  check(graph: Fields, depth: number): void {
    if (depth > MAX_DEPTH) refuse(this.what, `graphs nest deeper than ${MAX_DEPTH}`);
    if (graph.has(15) || graph.has(14)) refuse(this.what, "sparse or quantised constants are not run");
    for (const tensor of graph.messages(5)) this.tensor(tensor);
    const nodes = graph.messages(1);
    this.nodes += nodes.length;
    if (this.nodes > MAX_NODES) refuse(this.what, `more than ${MAX_NODES} nodes`);
    for (const node of nodes) this.node(node, depth);
  }

  private node(node: Fields, depth: number): void {
    const operator = node.text(4).slice(0, 40);
    if (node.text(7) !== "") refuse(this.what, `operator ${operator} of domain ${node.text(7).slice(0, 40)}`);
    if (!ALLOWED.has(operator)) refuse(this.what, `operator ${operator} is not on the list of those a node runs`);
    for (const attribute of node.messages(5)) {
      const type = attribute.integer(20);
      if (!ATTRIBUTE_TYPES.has(type) || attribute.text(21) !== "") {
        refuse(this.what, `attribute ${operator}.${attribute.text(1).slice(0, 40)} has a type that is not run`);
      }
      const graph = attribute.message(6);
      const tensor = attribute.message(5);
      if ((graph !== null) !== (type === GRAPH_ATTRIBUTE) || (tensor !== null) !== (type === TENSOR_ATTRIBUTE)) {
        refuse(this.what, `attribute ${operator}.${attribute.text(1).slice(0, 40)} holds another type than it says`);
      }
      if (graph !== null) this.check(graph, depth + 1);
      if (tensor !== null) this.tensor(tensor);
    }
  }

  private tensor(tensor: Fields): void {
    const what = `${this.what}: constant ${tensor.text(8).slice(0, 40)}`;
    if (tensor.integer(14) !== 0 || tensor.has(13)) refuse(what, "lies in another file; a plan reads none");
    const itemBytes = ITEM_BYTES.get(tensor.integer(2));
    if (itemBytes === undefined) refuse(what, `has ONNX dtype ${tensor.integer(2)}, which plans do not use`);
    const dims = tensor.integers(1);
    if (dims.length > MAX_RANK || dims.some((size) => size < 0)) refuse(what, `has shape [${dims.slice(0, 12)}]`);
    const size = dims.reduce((product, dim) => product * dim, itemBytes);
    if (size > MAX_CONSTANT_BYTES) refuse(what, `has ${size} bytes, at most ${MAX_CONSTANT_BYTES} are run`);
    const raw = tensor.bytes(9);
    if (raw !== null && raw.length !== size) refuse(what, `holds ${raw.length} bytes, its shape asks for ${size}`);
  }
}

function checkPorts(found: readonly Fields[], declared: readonly Port[], what: string): void {
  const names = found.map((entry) => entry.text(1));
  if (names.length !== declared.length || names.some((name, i) => name !== declared[i]?.name)) {
    refuse(what, `names are ${names.slice(0, 16)}, the manifest declares ${declared.map((port) => port.name)}`);
  }
  declared.forEach((port, i) => {
    const tensor = found[i]?.message(2)?.message(1) ?? null;
    const shape = tensor?.message(2) ?? null;
    const sizes = shape?.messages(1).map((dim) => (dim.has(1) ? dim.integer(1) : -1)) ?? [];
    const isSame = sizes.length === port.shape.length && sizes.every((size, axis) => size === port.shape[axis]);
    if (shape === null || tensor?.integer(1) !== ELEMENT_TYPES[port.dtype] || !isSame) {
      refuse(what, `${port.name} has another dtype or shape than the declared ${port.dtype}[${port.shape}]`);
    }
  });
}

/** The ports in the manifest are those its own counts and fields ask for (spec 05 §4). */
function checkDeclared(manifest: PlanManifest, kind: string, declared: PlanFunction, what: string): void {
  const expected = expectedPorts(manifest, kind, declared);
  const given = { inputs: declared.inputs, outputs: declared.outputs };
  if (expected === null || JSON.stringify(expected) !== JSON.stringify(given)) {
    refuse(what, "declares other ports than its fields and vectors ask for");
  }
}

function expectedPorts(manifest: PlanManifest, kind: string, declared: PlanFunction) {
  const vector = (name: string, size: number): Port => ({ name, dtype: "float32", shape: [size] });
  const theta = vector("theta", manifest.parameter_count);
  const buffers = vector("buffers", manifest.buffer_count);
  const state = vector("optimizer_state", manifest.optimizer_count);
  const frozen = frozenCount(manifest) === 0 ? [] : [vector("frozen", frozenCount(manifest))];
  const examples = (fields: readonly { name: string; dtype: Port["dtype"]; shape: readonly number[] }[]): Port[] =>
    fields.map((field) => ({ name: field.name, dtype: field.dtype, shape: [-1, ...field.shape] }));
  const batches: Port = { name: "batches", dtype: "int64", shape: [-1, -1] };
  const metrics: Port = { name: "metrics", dtype: "float32", shape: [-1, 1 + manifest.metrics.length] };
  if (kind === "train") {
    const rates: Port = { name: "learning_rates", dtype: "float32", shape: [-1] };
    const seed: Port = { name: "seed", dtype: "int64", shape: [] };
    const next = [theta, state, buffers].map((port) => ({ ...port, name: `next_${port.name}` }));
    const inputs = [theta, state, buffers, ...frozen, ...examples(dataFields(manifest)), batches, rates, seed];
    return { inputs, outputs: [...next, metrics] };
  }
  if (kind === "evaluate") {
    return { inputs: [theta, buffers, ...frozen, ...examples(dataFields(manifest)), batches], outputs: [metrics] };
  }
  if (kind === "predict" && declared.outputs.length === 1) {
    return { inputs: [theta, buffers, ...frozen, ...examples(manifest.inputs)], outputs: declared.outputs };
  }
  return null;
}

function refuse(what: string, reason: string): never {
  throw new UnsafePlanError(`${what}: ${reason}`);
}
