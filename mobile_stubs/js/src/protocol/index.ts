/** `peerplan/protocol`: documents, identities, links and signaling messages, free of platform code. */

export * from "./errors.js";
export { type Bytes, concat, fromBase64, fromHex, toBase64, toHex } from "./bytes.js";
export { Reader, Writer } from "./binary.js";
export * from "./cohorts.js";
export { decodeJson } from "./schema.js";
export { Identity, type PeerId, verify } from "./identity.js";
export { type Envelope, openEnvelope, type Opened, PLAN_TYPE, RUN_TYPE, sealEnvelope } from "./envelope.js";
export * from "./manifest.js";
export { type Deadlines, decodeTerms, MAX_COHORT, type RunTerms, threshold } from "./terms.js";
export { composeTail, type Part, readTail, type RoundMetrics, tailLength } from "./tail.js";
export { seal, SealingKey } from "./sealing.js";
export { decodeModelMessage, encodeModelMessage, type ModelMessage } from "./model-transfer.js";
export * from "./link/framing.js";
export * from "./link/hello.js";
export * from "./link/negotiation.js";
export {
  audienceOf,
  decodeBlobPart,
  decodeServerMessage,
  encodePeerMessage,
  type PeerMessage,
  type ServerMessage,
} from "./signaling/messages.js";
