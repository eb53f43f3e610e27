/**
 * Times calls of one graph in onnxruntime-web as a node makes them, in a thread of its own. For benchmarks/plan_step_web.py:
 * the first line of stdin is {graph, feeds}, bytes in base64; each further line asks for one timed call.
 */

import { createInterface } from "node:readline";
import { createNodeRuntime } from "../dist/nodejs/runtime.js";

const ARRAYS = { float32: Float32Array, int64: BigInt64Array };
const bytes = (text) => Uint8Array.from(Buffer.from(text, "base64"));

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const { graph, feeds } = JSON.parse((await lines.next()).value);
const tensors = Object.entries(feeds).map(([name, { dtype, shape, data }]) => {
  return [name, { dtype, shape, data: new ARRAYS[dtype](bytes(data).buffer) }];
});
const given = Object.fromEntries(tensors);
const runtime = createNodeRuntime();
const session = await runtime.load(bytes(graph));
for await (const line of lines) {
  const begun = performance.now();
  const out = await session.run(given);
  const seconds = (performance.now() - begun) / 1000;
  const theta = line === "theta" ? Buffer.from(out.next_theta.data.buffer).toString("base64") : null;
  process.stdout.write(`${JSON.stringify({ seconds, theta })}\n`);
}
runtime.close();
