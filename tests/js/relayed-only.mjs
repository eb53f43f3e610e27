/** peer.mjs, whose connections may go over relays alone; they are kept in `connections`. */

import { register } from "node:module";

const inside = `
  import { PeerConnection as Given } from "node-datachannel?given";
  export * from "node-datachannel?given";
  export class PeerConnection extends Given {
    constructor(name, options) {
      super(name, { ...options, iceTransportPolicy: "relay" });
      globalThis.connections.push(this);
    }
  }
`;
const hooks = `
  export async function resolve(specifier, context, next) {
    if (specifier === "node-datachannel") return { url: "outer:node-datachannel", shortCircuit: true };
    if (specifier !== "node-datachannel?given") return next(specifier, context);
    return next("node-datachannel", { ...context, parentURL: ${JSON.stringify(new URL("../../mobile_stubs/js/dist/nodejs/rtc.js", import.meta.url).href)} });
  }
  export async function load(url, context, next) {
    if (url !== "outer:node-datachannel") return next(url, context);
    return { format: "module", source: ${JSON.stringify(inside)}, shortCircuit: true };
  }
`;
globalThis.connections = [];
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
await import("./peer.mjs");
