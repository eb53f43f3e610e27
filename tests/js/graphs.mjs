/** Validates and loads graphs: JSON lines {manifest, kind, graph (hex), feeds?} in, {refused, by, output} out. */

import { createInterface } from "node:readline";
import { fromHex } from "../../mobile_stubs/js/dist/protocol/bytes.js";
import { decodeManifest } from "../../mobile_stubs/js/dist/protocol/manifest.js";
import { validateFunction } from "../../mobile_stubs/js/dist/plans/validate.js";
import { UnsafePlanError } from "../../mobile_stubs/js/dist/node/errors.js";
import { createNodeRuntime } from "../../mobile_stubs/js/dist/nodejs/runtime.js";

const runtime = createNodeRuntime();

async function judge({ manifest, kind, graph, feeds }) {
  const decoded = decodeManifest(new TextEncoder().encode(manifest));
  const data = fromHex(graph);
  try {
    validateFunction(decoded, kind, decoded.functions[kind], data);
  } catch (error) {
    if (!(error instanceof UnsafePlanError)) throw error;
    return { refused: error.message, by: "rules" };
  }
  if (feeds === undefined) return { refused: null };
  let session;
  try {
    session = await runtime.load(data);
  } catch (error) {
    return { refused: error.message, by: "runtime" };
  }
  const tensors = Object.entries(feeds).map(([name, { shape, values }]) => {
    return [name, { dtype: "float32", shape, data: Float32Array.from(values) }];
  });
  const [output] = Object.values(await session.run(Object.fromEntries(tensors)));
  return { refused: null, output: [...output.data] };
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await judge(JSON.parse(line)))}\n`);
}
