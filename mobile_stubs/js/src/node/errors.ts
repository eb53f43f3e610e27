/**
 * Errors of a node beside those of the protocol core.
 *
 *     NodeError
 *     ├── SignalingDownError       signaling-down      nobody answers, or not in time
 *     ├── SignalingRefusedError    the wire's own code the signaling server said no
 *     ├── SignalingUntrustedError  signaling-untrusted it is not who it should be, or breaks the protocol
 *     ├── UnsafePlanError          unsafe-plan         a plan with a graph that no node runs
 *     ├── UnusableDataError        unusable-data       data that does not fit the plan
 *     ├── ExecutionError           execution-failed    ONNX Runtime failed or took too long, or training diverged
 *     ├── PolicyError              bad-policy          a policy that contradicts itself
 *     ├── ReceiptError             bad-receipt         a signed document that is no receipt of this node
 *     ├── NotNowError              not-now             the owner's device rules say no for the moment
 *     ├── PlatformError            no-webrtc, no-wasm-simd  what this platform lacks
 *     └── StorageError             storage-failed      durable storage is denied or failed
 *         └── StorageInUseError    storage-in-use      another node has the same storage open
 *
 * All codes: spec/errors.md.
 */

/** Base of a node's own errors; `code` is a wire code of spec/errors.md. */
export class NodeError extends Error {
  constructor(
    message: string,
    readonly code: string = "node-error",
  ) {
    super(message);
  }
  override get name(): string {
    return this.constructor.name;
  }
}

/** Nobody answers at the signaling server's address, or not in time. */
export class SignalingDownError extends NodeError {
  constructor(url: string, reason: string) {
    super(`signaling server ${url}: ${reason}`, "signaling-down");
  }
}

/** The signaling server refused a request; `code` says why. */
export class SignalingRefusedError extends NodeError {
  constructor(url: string, code: string, reason: string) {
    super(`signaling server ${url}: ${reason}`, code);
  }
}

/** The signaling server is another one than expected, or does not speak the protocol. */
export class SignalingUntrustedError extends NodeError {
  constructor(url: string, reason: string) {
    super(`signaling server ${url}: ${reason}`, "signaling-untrusted");
  }
}

/** A plan with a graph that no node runs. */
export class UnsafePlanError extends NodeError {
  constructor(message: string) {
    super(message, "unsafe-plan");
  }
}

/** Data that does not fit the plan, or that holds values the plan cannot read. */
export class UnusableDataError extends NodeError {
  constructor(message: string) {
    super(message, "unusable-data");
  }
}

/** ONNX Runtime refused a graph or failed while it ran, or training diverged. */
export class ExecutionError extends NodeError {
  constructor(message: string) {
    super(message, "execution-failed");
  }
}

/** A policy of the owner that contradicts itself. */
export class PolicyError extends NodeError {
  constructor(message: string) {
    super(message, "bad-policy");
  }
}

/** A signed document that is no receipt, or a receipt of another node. */
export class ReceiptError extends NodeError {
  constructor(message: string) {
    super(message, "bad-receipt");
  }
}

/** The owner's rules for this device say no for the moment; `rule` is the one that does. */
export class NotNowError extends NodeError {
  constructor(
    readonly rule: string,
    reason: string,
  ) {
    super(reason, "not-now");
  }
}

/** This platform lacks something without which no node runs. */
export class PlatformError extends NodeError {
  constructor(
    code: "no-webrtc" | "no-wasm-simd",
    message: string,
  ) {
    super(message, code);
  }
}

/** Durable storage is denied or failed; without it no round is joined. */
export class StorageError extends NodeError {
  constructor(message: string, code = "storage-failed") {
    super(message, code);
  }
}

/** Another node has the same storage open: two of one identity would answer each other's rounds. */
export class StorageInUseError extends StorageError {
  constructor(message: string) {
    super(message, "storage-in-use");
  }
}
