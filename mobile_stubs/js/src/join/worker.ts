/**
 * The page's worker: ONNX Runtime, whose WebAssembly comes in compressed parts.
 *
 * A signaling server has to be done with a plain HTTP answer within seconds, so 14 MB do not come in one.
 */

import * as ort from "onnxruntime-web/wasm";
import { ortRuntime } from "../node/ort.js";
import { serveRuntime, type WorkerReply, type WorkerRequest } from "../node/worker-runtime.js";

const scope = globalThis as unknown as {
  postMessage(reply: WorkerReply): void;
  onmessage: ((event: { data: WorkerRequest }) => void) | null;
};
const TRIES = 4;

const ready = begin();
ready.catch(() => undefined); // told with the first request

async function begin(): Promise<(request: WorkerRequest) => void> {
  const here = new URL("./", import.meta.url);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { mjs: new URL("ort-wasm-simd-threaded.mjs", here).href };
  ort.env.logLevel = "error";
  ort.env.wasm.wasmBinary = await whole(here);
  return serveRuntime(ortRuntime(ort), (reply) => scope.postMessage(reply));
}

async function whole(here: URL): Promise<ArrayBuffer> {
  const { parts } = (await (await fetched(new URL("runtime.json", here))).json()) as { parts: number };
  const compressed: ArrayBuffer[] = [];
  for (let part = 0; part < parts; part++) compressed.push(await (await fetched(new URL(`runtime.${part}`, here))).arrayBuffer());
  return new Response(new Blob(compressed).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/** A connection that breaks is a reason to ask again, a refusal is not. */
async function fetched(url: URL): Promise<Response> {
  for (let tries = 1; ; tries++) {
    try {
      const response = await fetch(url);
      if (!response.ok) throw new Error(`${url.pathname}: the server answered ${response.status}`);
      return new Response(await response.arrayBuffer());
    } catch (error) {
      if (tries === TRIES || !(error instanceof TypeError)) throw error;
    }
  }
}

scope.onmessage = ({ data }) => {
  ready.then(
    (take) => take(data),
    (error: unknown) => scope.postMessage({ id: data.id, error: `ONNX Runtime did not load: ${String(error)}` }),
  );
};
