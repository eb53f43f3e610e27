/** ONNX Runtime by WebAssembly in a Worker, so that the page stays smooth. */

import { PlatformError } from "../node/errors.js";
import type { Runtime } from "../node/platform.js";
import { workerRuntime } from "../node/worker-runtime.js";

/** A module with one SIMD instruction: what a browser without SIMD does not take for valid. */
const SIMD_MODULE = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0], // magic, version
  ...[1, 5, 1, 96, 0, 1, 123], // a type: () -> v128
  ...[3, 2, 1, 0], // a function of it
  ...[10, 8, 1, 6, 0, 65, 0, 253, 15, 11], // its body: i32.const 0, i8x16.splat
);

/** @throws PlatformError this browser cannot run ONNX Runtime's WebAssembly. */
export function requireWasmSimd(): void {
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(SIMD_MODULE)) {
    throw new PlatformError("no-wasm-simd", "this browser has no WebAssembly with SIMD, without which no plan can be run");
  }
}

/** A runtime in the worker script at `url`: `runtime-worker.js` of the bundle. */
export function createBrowserRuntime(url: URL): Runtime {
  return workerRuntime(() => {
    const worker = new Worker(url, { type: "module" });
    return {
      close: () => worker.terminate(),
      post: (request) => worker.postMessage(request),
      listen: (onReply, failed) => {
        worker.onmessage = ({ data }) => onReply(data);
        worker.onerror = (event) => failed(`the worker of ONNX Runtime failed: ${event.message || "it did not load"}`);
      },
    };
  });
}
