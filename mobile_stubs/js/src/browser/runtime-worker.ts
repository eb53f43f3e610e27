/** The worker in which ONNX Runtime works; its .wasm file lies beside this script. */

import * as ort from "onnxruntime-web/wasm";
import { ortRuntime } from "../node/ort.js";
import { serveRuntime, type WorkerReply, type WorkerRequest } from "../node/worker-runtime.js";

const scope = globalThis as unknown as {
  postMessage(reply: WorkerReply): void;
  onmessage: ((event: { data: WorkerRequest }) => void) | null;
};

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
ort.env.logLevel = "error";
const take = serveRuntime(ortRuntime(ort), (reply) => scope.postMessage(reply));
scope.onmessage = ({ data }) => take(data);
