/** `peerplan/secagg`: p2psa/1, from its primitives to the round machine in every role. */

export * from "./apply.js";
export * from "./combining.js";
export * from "./keys.js";
export * from "./masking.js";
export * from "./packing.js";
export * from "./parameters.js";
export * from "./prg.js";
export * from "./quantise.js";
export * from "./shamir.js";
export type { Action, Completed, Failed, Outcome } from "../round/actions.js";
export { Codec, resultPayload, roundTag, sumPayload } from "../round/codec.js";
export { RoundMachine } from "../round/machine.js";
export * from "../round/messages.js";
export { type AttemptOptions, randomnessBytes, Stage, stageName } from "../round/state.js";
