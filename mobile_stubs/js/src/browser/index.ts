/** `peerplan/browser`: a node in a page, over the browser's WebRTC, WebCrypto, IndexedDB and a Worker. */

import { Node as CoreNode, type NodeOptions } from "../node/node.js";
import type { Platform, Socket } from "../node/platform.js";
import { createBrowserRtc } from "./rtc.js";
import { browserDevice, type DeviceRules } from "./eligibility.js";
import { createBrowserRuntime, requireWasmSimd } from "./runtime.js";
import { DatabaseStorage } from "./storage.js";

export type { Dataset, FieldData } from "../plans/data.js";
export type { Batch, DatasetSource } from "../plans/dataset-source.js";
export type { Device, Objection } from "../node/device.js";
export * from "../node/errors.js";
export type { NodeEvent, NodeEventName, NodeEvents } from "../node/events.js";
export type { Checkpoint, IceServer, Platform, Storage, Tensor } from "../node/platform.js";
export { CAREFUL, type Policy, type Verdict } from "../node/policy.js";
export { openReceipt, type Receipt } from "../node/receipts.js";
export { Identity } from "../protocol/identity.js";
export { browserDevice, type DeviceRules } from "./eligibility.js";
export { DatabaseStorage };

/** How a node is made in a page. */
export type BrowserOptions = Omit<NodeOptions, "platform" | "device"> & {
  readonly storage: DatabaseStorage;
  /** What the owner minds about battery, connection and visibility; nothing by default. */
  readonly device?: DeviceRules;
  /** Where `runtime-worker.js` lies, with ONNX Runtime's .wasm file beside it; by default beside this module. */
  readonly worker?: URL;
};

/** What a browser gives a node. */
export function browserPlatform(storage: DatabaseStorage, worker?: URL): Platform {
  const runtime = createBrowserRuntime(worker ?? new URL("./runtime-worker.js", import.meta.url));
  return {
    openSocket: (url) => new WebSocket(url) as unknown as Socket,
    createRtc: createBrowserRtc,
    runtime,
    storage, // its owner opened it, and closes it
    close: () => runtime.close(),
  };
}

/** A peer of private machine learning in a page. */
export const Node = {
  /**
   * Connect to a signaling server and register as a node with these datasets.
   *
   * @throws NodeError signaling is down, refuses, or is not to be trusted; no WebRTC or no
   *     WebAssembly with SIMD; unusable data.
   */
  async connect(url: string, options: BrowserOptions): Promise<CoreNode> {
    const { storage, worker, device = {}, ...rest } = options;
    requireWasmSimd();
    return CoreNode.connect(url, { ...rest, device: browserDevice(device), platform: browserPlatform(storage, worker) });
  },
};
/** A connected node. */
export type Node = CoreNode;
