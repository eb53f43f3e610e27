/**
 * Errors of a node beside those of the protocol core.
 *
 *     NodeError
 *     ├── SignalingDownError       signaling-down      nobody answers, or not in time
 *     ├── SignalingRefusedError    the wire's own code the signaling server said no
 *     ├── SignalingUntrustedError  signaling-untrusted it is not who it should be, or breaks the protocol
 *     ├── UnsafePlanError          unsafe-plan         a plan with a graph that no node runs
 *     ├── UnusableDataError        unusable-data       data that does not fit the plan
 *     ├── ExecutionError           execution-failed    ONNX Runtime failed, or training diverged
 *     └── StorageError             storage-failed      durable storage is denied or failed
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

/** Durable storage is denied or failed; without it no round is joined. */
export class StorageError extends NodeError {
  constructor(message: string) {
    super(message, "storage-failed");
  }
}
