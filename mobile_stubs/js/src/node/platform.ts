/** What a platform gives a node: sockets, peer connections, ONNX Runtime and durable storage. One adapter each. */

import type { Bytes } from "../protocol/bytes.js";

/** The part of the browser's WebSocket that is used; the package `ws` has it too. */
export interface Socket {
  binaryType: string;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: string | Bytes): void;
  close(code?: number, reason?: string): void;
}

/** A STUN or TURN server, as in WebRTC. */
export interface IceServer {
  readonly urls: string | string[];
  readonly username?: string;
  readonly credential?: string;
}

/** What a connection reports. */
export interface RtcEvents {
  onOpen(): void;
  onData(frame: Bytes): void;
  onWritable(): void;
  onClosed(reason: string): void;
}

/** One attempt at a peer connection, and the data channel it ends in (spec 04 §1). */
export interface RtcConnection {
  /** Gather candidates and give the offer. */
  createOffer(): Promise<string>;
  /** Take the other side's offer and give the answer. */
  acceptOffer(sdp: string): Promise<string>;
  /** Take the other side's answer. */
  acceptAnswer(sdp: string): Promise<void>;
  /** Take one more candidate ("candidate:..."); "" says there are no more. */
  addCandidate(line: string): Promise<void>;
  /** SHA-256 of the certificate the DTLS session was made with, 64 lower-case hexadecimal digits. */
  remoteFingerprint(): string;
  /** The largest message the other side accepts. */
  readonly maxMessageBytes: number;
  /** Bytes handed to the channel and not yet to its transport. */
  readonly bufferedBytes: number;
  readonly isOpen: boolean;
  send(frame: Bytes): void;
  /** Close everything; nothing is reported afterwards. */
  close(): void;
}

/** Makes connections that all show one DTLS certificate, whose key lives in memory alone. */
export interface Rtc {
  /** SHA-256 of that certificate, 64 lower-case hexadecimal digits. */
  readonly fingerprint: string;
  /** Throws LinkError where this platform would leave one of these out; a platform without the method uses all. */
  check?(iceServers: readonly IceServer[]): void;
  connect(options: { iceServers: readonly IceServer[]; lowBytes: number; events: RtcEvents }): RtcConnection;
}

/** A flat array of one of the dtypes that plans use. */
export type TensorData = Float32Array | Float64Array | Int32Array | BigInt64Array | Uint8Array;

/** A tensor with its shape. */
export interface Tensor {
  readonly dtype: "float32" | "float64" | "int32" | "int64" | "uint8" | "bool";
  readonly data: TensorData;
  readonly shape: readonly number[];
}

/** A loaded graph. */
export interface Session {
  /** Whether what holds it has ended; it must be loaded anew then. */
  readonly isOver: boolean;
  run(feeds: Readonly<Record<string, Tensor>>): Promise<Readonly<Record<string, Tensor>>>;
  release(): Promise<void>;
}

/** What loads graphs. */
export interface Loader {
  load(graph: Bytes): Promise<Session>;
}

/** ONNX Runtime, where a node can end it. */
export interface Runtime extends Loader {
  /** End every session, also one that is computing. */
  close(): void;
}

/**
 * A model after `round` rounds; `reached` is the highest round this peer ever held the result of, `local` the peer's own
 * parameters, which are sent to nobody.
 */
export interface Checkpoint {
  readonly round: number;
  readonly reached: number;
  readonly digest: string;
  readonly model: Bytes;
  readonly local: Bytes;
}

/** Durable storage of one peer. Every call resolves once its effect outlives the process. */
export interface Storage {
  /** Append a line to the journal of an attempt; `entry` and `detail` hold no secret. */
  record(roundId: string, entry: string, detail: string): Promise<void>;
  /** Whether an attempt was ever joined. */
  joined(roundId: string): Promise<boolean>;
  /** Replace the checkpoint of a run. */
  saveCheckpoint(run: string, checkpoint: Checkpoint): Promise<void>;
  loadCheckpoint(run: string): Promise<Checkpoint | null>;
  /** Append a signed receipt. */
  saveReceipt(envelope: Bytes): Promise<void>;
  /** Every receipt, oldest first. */
  receipts(): Promise<readonly Bytes[]>;
}

/** Everything of a platform. */
export interface Platform {
  openSocket(url: string): Socket;
  createRtc(): Promise<Rtc>;
  readonly runtime: Runtime;
  readonly storage: Storage;
  /** Give back what the platform opened for this node. */
  close(): void;
}
