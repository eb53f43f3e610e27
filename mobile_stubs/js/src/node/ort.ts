/** ONNX Runtime's JavaScript interface behind a node's `Runtime`: its packages all have the same one. */

import type * as Ort from "onnxruntime-web";
import type { Loader, Tensor } from "./platform.js";

/** Loads graphs by an onnxruntime package. */
export function ortRuntime(ort: Pick<typeof Ort, "InferenceSession" | "Tensor">): Loader {
  return {
    async load(graph) {
      const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
      return {
        isOver: false,
        async run(feeds) {
          const given = Object.entries(feeds).map(([name, tensor]) => [name, toOrt(ort, tensor)]);
          const out = await session.run(Object.fromEntries(given));
          return Object.fromEntries(Object.entries(out).map(([name, tensor]) => [name, fromOrt(tensor)]));
        },
        release: () => session.release(),
      };
    },
  };
}

function toOrt(ort: Pick<typeof Ort, "Tensor">, { dtype, data, shape }: Tensor): Ort.Tensor {
  return new ort.Tensor(dtype as "float32", data as Float32Array, [...shape]);
}

function fromOrt(tensor: Ort.Tensor): Tensor {
  // the runtime's own memory may be reused by the next call
  const data = (tensor.data as Float32Array).slice();
  return { dtype: tensor.type as Tensor["dtype"], data, shape: [...tensor.dims] };
}
