/** Loads every ONNX file of a folder in onnxruntime-web and prints what came of each: null, or the error. */

import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, packageFolder] = process.argv.slice(2);
const resolve = createRequire(join(packageFolder, "package.json")).resolve;
const ort = await import(pathToFileURL(resolve("onnxruntime-web")));
const api = ort.default ?? ort;
api.env.wasm.numThreads = 1;

const found = {};
for (const name of readdirSync(folder)) {
  try {
    const options = { executionProviders: ["wasm"], logSeverityLevel: 4 };
    const session = await api.InferenceSession.create(new Uint8Array(readFileSync(join(folder, name))), options);
    await session.release();
    found[name] = null;
  } catch (error) {
    found[name] = String(error);
  }
}
console.log(JSON.stringify(found));
