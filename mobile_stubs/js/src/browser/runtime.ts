/** ONNX Runtime by WebAssembly in a Worker, so that the page stays smooth. */

import type { Runtime } from "../node/platform.js";
import { workerRuntime } from "../node/worker-runtime.js";

/** A runtime in the worker script at `url`: `runtime-worker.js` of the bundle. */
export function createBrowserRuntime(url: URL): Runtime {
  return workerRuntime(() => {
    const worker = new Worker(url, { type: "module" });
    return {
      post: (request) => worker.postMessage(request),
      listen: (onReply, failed) => {
        worker.onmessage = ({ data }) => onReply(data);
        worker.onerror = (event) => failed(`the worker of ONNX Runtime failed: ${event.message || "it did not load"}`);
      },
    };
  });
}
