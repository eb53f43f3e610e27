/** Runs one ONNX file once in onnxruntime-web: inputs come as JSON by name, outputs are printed as lists by name. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [graph, inputs, packageFolder] = process.argv.slice(2);
const resolve = createRequire(join(packageFolder, "package.json")).resolve;
const ort = await import(pathToFileURL(resolve("onnxruntime-web")));
const api = ort.default ?? ort;
api.env.wasm.numThreads = 1;

const feeds = {};
for (const [name, { dtype, shape, values }] of Object.entries(JSON.parse(readFileSync(inputs, "utf8")))) {
  const data = dtype === "int64" ? BigInt64Array.from(values.map(BigInt)) : Float32Array.from(values);
  feeds[name] = new api.Tensor(dtype, data, shape);
}
const options = { executionProviders: ["wasm"], logSeverityLevel: 3 };
const session = await api.InferenceSession.create(new Uint8Array(readFileSync(graph)), options);
const outputs = await session.run(feeds);
console.log(JSON.stringify(Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, [...data]]))));
