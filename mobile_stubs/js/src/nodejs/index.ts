/** `peerplan/node`: a node in Node.js, over libdatachannel, `ws` and ONNX Runtime's WebAssembly build. */

import { WebSocket } from "ws";
import { Node as CoreNode, type NodeOptions } from "../node/node.js";
import type { Platform, Socket } from "../node/platform.js";
import { createNodeRtc } from "./rtc.js";
import { createNodeRuntime } from "./runtime.js";
import { FolderStorage } from "./storage.js";

export type { Dataset, FieldData } from "../plans/data.js";
export type { Batch, DatasetSource } from "../plans/dataset-source.js";
export type { Device, Objection } from "../node/device.js";
export * from "../node/errors.js";
export type { NodeEvent, NodeEventName, NodeEvents } from "../node/events.js";
export type { Checkpoint, IceServer, Platform, Storage, Tensor } from "../node/platform.js";
export { CAREFUL, type Policy, type Verdict } from "../node/policy.js";
export { openReceipt, type Receipt } from "../node/receipts.js";
export { Identity } from "../protocol/identity.js";
export { loadOrCreateIdentity } from "./identity.js";
export { FolderStorage };

const MAX_FRAME_BYTES = 256 << 10;

/** How a node is made in Node.js. `folder` is where its journal and checkpoints are kept. */
export type NodeJsOptions = Omit<NodeOptions, "platform"> & { readonly folder: string };

/** What Node.js gives a node. */
export async function nodePlatform(folder: string): Promise<Platform> {
  const storage = await FolderStorage.open(folder);
  const runtime = createNodeRuntime();
  return {
    openSocket: (url) => new WebSocket(url, { perMessageDeflate: false, maxPayload: MAX_FRAME_BYTES }) as unknown as Socket,
    createRtc: createNodeRtc,
    runtime,
    storage,
    close: () => {
      runtime.close();
      storage.close();
    },
  };
}

/** A peer of private machine learning in Node.js. */
export const Node = {
  /**
   * Connect to a signaling server and register as a node with these datasets.
   *
   * @throws NodeError signaling is down, refuses, or is not to be trusted; storage is denied; a dataset is unusable.
   */
  async connect(url: string, options: NodeJsOptions): Promise<CoreNode> {
    const { folder, ...rest } = options;
    return CoreNode.connect(url, { ...rest, platform: await nodePlatform(folder) });
  },
};
/** A connected node. */
export type Node = CoreNode;
