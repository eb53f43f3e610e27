/** ONNX Runtime by WebAssembly in a thread of Node.js: the same kernels as in a browser. */

import { Worker } from "node:worker_threads";
import type { Runtime } from "../node/platform.js";
import { type Port, workerRuntime } from "../node/worker-runtime.js";

/** A runtime in a thread of its own, which keeps the process alive only while it has something to answer. */
export function createNodeRuntime(): Runtime {
  return workerRuntime(openThread);
}

function openThread(): Port {
  const worker = new Worker(new URL("./runtime-thread.js", import.meta.url));
  let unanswered = 0;
  return {
    close: () => void worker.terminate(),
    post(request) {
      if (unanswered++ === 0) worker.ref();
      worker.postMessage(request);
    },
    listen(onReply, failed) {
      worker.on("message", (reply) => {
        if (--unanswered === 0) worker.unref();
        onReply(reply);
      });
      worker.on("error", (error) => failed(`the thread of ONNX Runtime failed: ${error.message}`));
      worker.on("exit", (code) => failed(`the thread of ONNX Runtime ended with code ${code}`));
    },
  };
}
