/** The thread in which ONNX Runtime works. */

import { parentPort } from "node:worker_threads";
import * as ort from "onnxruntime-web";
import { ortRuntime } from "../node/ort.js";
import { serveRuntime } from "../node/worker-runtime.js";

ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const take = serveRuntime(ortRuntime(ort), (reply) => parentPort?.postMessage(reply));
parentPort?.on("message", take);
