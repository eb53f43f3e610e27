/**
 * A session with the signaling server: requests matched to replies, events in order, reconnects with random waits.
 *
 *     dialling --welcome--> open --(lost)--> waiting --> dialling ...;   any --close, replaced, untrusted--> ended
 *
 * Every request may be repeated without harm, so one that is caught by a lost connection is sent again. What holds
 * beyond its reply (registration, consents, undecided results) is said again after a reconnect.
 */

import { type Bytes, concat, short } from "../protocol/bytes.js";
import { ProtocolError } from "../protocol/errors.js";
import {
  decodeBlobPart,
  decodeServerMessage,
  encodePeerMessage,
  type PeerMessage,
  type PeerMessages,
  type ServerMessage,
  type ServerMessages,
} from "../protocol/signaling/messages.js";
import { NodeError, SignalingDownError, SignalingRefusedError, SignalingUntrustedError } from "./errors.js";
import { dial, type DialOptions, type Inbox } from "./dial.js";
import type { Socket } from "./platform.js";

const REQUEST_TIMEOUT_MS = 30_000;
/** What 1002 means; browsers let pages close with 1000 and 3000 to 4999 alone. */
const BROKEN_PROTOCOL = 3002;
const FIRST_BACKOFF_MS = 100;
const LONGEST_BACKOFF_MS = 15_000;
const MAX_SLICE_BYTES = 1 << 20;
/** Lost connections in a row without one byte of progress, after which a transfer gives up. */
const MAX_STALLS = 5;
const TICK_MS = 5_000;
/** A tick that comes so late means that this device slept, and that the connection may be dead without a word. */
const ASLEEP_MS = 10_000;
const PROBE_TIMEOUT_MS = 5_000;
/** Errors after which dialling again changes nothing. */
const FINAL_CODES: ReadonlySet<string> = new Set(["replaced", "version-mismatch", "wrong-audience", "not-allowed"]);

type Reply = Extract<ServerMessage, { readonly re: unknown }>;
type RequestType = { [K in keyof PeerMessages]: PeerMessages[K] extends { id: number } ? K : never }[keyof PeerMessages];
type Fields<K extends RequestType> = Omit<PeerMessages[K], "type" | "id">;
type Event = Exclude<ServerMessage, Reply | { type: "challenge" | "welcome" }>;

/** What a session tells its owner: the signaling server's events, and three of its own. */
export type SessionEvent =
  | Event
  | { readonly type: "disconnected"; readonly reason: string }
  | { readonly type: "reconnected" }
  | { readonly type: "relay_failed"; readonly to: string; readonly code: string }
  | { readonly type: "ended"; readonly error: NodeError | null };

interface Waiting {
  readonly request: PeerMessage & { id: number };
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: Error) => void;
  readonly timer: ReturnType<typeof setTimeout>;
}

interface Slice {
  readonly digest: string;
  /** Bytes that were asked for. */
  readonly most: number;
  readonly parts: Bytes[];
  next: number;
  left: number;
  readonly resolve: (data: Bytes) => void;
  readonly reject: (error: Error) => void;
}

/** How a signaling server is reached, and who hears of its events. */
export interface SessionOptions extends DialOptions {
  readonly onEvent: (event: SessionEvent) => void;
}

/** One session; `start` opens it. */
export class Session {
  private socket: Socket | null = null;
  private nextId = 0;
  private error: NodeError | null = null;
  private isClosed = false;
  private backoff: ReturnType<typeof setTimeout> | null = null;
  private readonly waiting = new Map<number, Waiting>();
  private readonly relays = new Map<number, string>();
  private readonly slices = new Map<number, Slice>();
  private arriving: Slice | null = null;
  private registration: Fields<"register"> | null = null;
  private readonly accepted = new Map<string, Fields<"accept">>();
  private readonly results = new Map<string, Fields<"result">>();
  private ticker: ReturnType<typeof setInterval> | null = null;
  private tickedAt = 0;

  constructor(private readonly options: SessionOptions) {}

  /**
   * Connect and authenticate both sides; events follow from now on.
   *
   * @throws SignalingDownError, SignalingRefusedError, SignalingUntrustedError there is no session to be had.
   */
  async start(): Promise<void> {
    this.adopt(await dial(this.options));
    this.tickedAt = performance.now();
    this.ticker = setInterval(() => void this.tick(), TICK_MS);
  }

  /** Where the signaling server is. */
  get url(): string {
    return this.options.url;
  }

  /**
   * Send a request and wait for its reply, across reconnects.
   *
   * @throws SignalingRefusedError it was refused.
   * @throws SignalingDownError no reply in time.
   */
  async request<K extends RequestType, R extends Reply["type"]>(
    type: K,
    fields: Fields<K>,
    reply: R,
    signal?: AbortSignal,
  ): Promise<ServerMessages[R]> {
    const found = await this.ask(type, fields, signal);
    if (found.type !== reply) {
      throw new SignalingUntrustedError(this.url, `answered ${type} with ${found.type}, expected ${reply}`);
    }
    return found as ServerMessages[R];
  }

  /** Advertise datasets; offers follow. */
  async register(fields: Fields<"register">): Promise<void> {
    this.registration = fields;
    await this.request("register", fields, "done");
  }

  /** Consent to a run; holds across reconnects. */
  async accept(fields: Fields<"accept">): Promise<ServerMessages["run_reply"]["status"]> {
    this.accepted.set(fields.run, fields);
    try {
      return (await this.request("accept", fields, "run_reply")).status;
    } catch (error) {
      if (error instanceof SignalingRefusedError) this.accepted.delete(fields.run);
      throw error;
    }
  }

  /** Take consent back. */
  async withdraw(run: string): Promise<void> {
    this.accepted.delete(run);
    await this.request("withdraw", { run }, "done");
  }

  /** Report a round; said again after reconnects until it is decided. */
  async result(fields: Fields<"result">): Promise<void> {
    this.results.set(fields.run, fields);
    try {
      await this.request("result", fields, "done");
    } catch (error) {
      if (error instanceof SignalingRefusedError) this.results.delete(fields.run);
      throw error;
    }
  }

  /** Hand a set-up message to another peer, at once and without a reply; failures come as `relay_failed`. */
  relay(fields: Fields<"relay">): void {
    const id = ++this.nextId;
    if (this.socket === null) {
      this.options.onEvent({ type: "relay_failed", to: fields.to, code: "peer-offline" });
      return;
    }
    this.relays.set(id, fields.to);
    if (this.relays.size > 1024) this.relays.delete(this.relays.keys().next().value as number);
    this.socket.send(encodePeerMessage({ type: "relay", id, ...fields }));
  }

  /**
   * A blob of a known size, in slices.
   *
   * @throws SignalingUntrustedError it has another size than the signed manifest says.
   * @throws SignalingDownError the connection broke several times without progress.
   */
  async blob(digest: string, size: number, signal?: AbortSignal): Promise<Bytes> {
    const parts: Bytes[] = [];
    let stalls = 0;
    for (let offset = 0; offset < size; ) {
      try {
        const part = await this.slice(digest, offset, Math.min(MAX_SLICE_BYTES, size - offset), size, signal);
        parts.push(part);
        offset += part.length;
        stalls = 0;
      } catch (error) {
        if (!(error instanceof SignalingDownError) || this.isClosed || ++stalls >= MAX_STALLS) throw error;
      }
    }
    return concat(...parts);
  }

  /** Close the connection and end the session. */
  close(): void {
    this.end(null);
  }

  private async ask<K extends RequestType>(type: K, fields: Fields<K>, signal?: AbortSignal): Promise<Reply> {
    signal?.throwIfAborted();
    if (this.isClosed) throw this.error ?? new SignalingDownError(this.url, "the session is closed");
    const id = ++this.nextId;
    const request = { type, id, ...fields } as unknown as PeerMessage & { id: number };
    const text = encodePeerMessage(request);
    const called = () => this.settle(id)?.reject(signal?.reason as Error);
    signal?.addEventListener("abort", called, { once: true });
    try {
      return await new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          this.waiting.delete(id);
          reject(new SignalingDownError(this.url, `no reply to ${type} within ${REQUEST_TIMEOUT_MS / 1000} s`));
        }, REQUEST_TIMEOUT_MS);
        this.waiting.set(id, { request, resolve, reject, timer });
        this.socket?.send(text);
      });
    } finally {
      signal?.removeEventListener("abort", called);
    }
  }

  /** After a sleep the other side may have hung up unheard: ask something, and dial anew where no answer comes. */
  private async tick(): Promise<void> {
    const now = performance.now();
    const late = now - this.tickedAt - TICK_MS;
    this.tickedAt = now;
    const { socket } = this;
    if (late < ASLEEP_MS || socket === null) return;
    const hangUp = setTimeout(() => this.hangUp(socket), PROBE_TIMEOUT_MS);
    try {
      await this.request("list_runs", { after: 0, limit: 1, plan: null }, "runs");
    } catch (error) {
      if (!(error instanceof NodeError)) throw error; // whoever waits for something hears of it too
    } finally {
      clearTimeout(hangUp);
    }
  }

  private hangUp(socket: Socket): void {
    if (socket !== this.socket) return; // it was lost, and another one made
    socket.onmessage = null;
    socket.onclose = null;
    socket.close();
    this.lost("no answer after this device slept");
  }

  private async slice(
    digest: string,
    offset: number,
    length: number,
    size: number,
    signal: AbortSignal | undefined,
  ): Promise<Bytes> {
    const id = this.nextId + 1; // what `ask` takes: nothing awaits in between
    const data = new Promise<Bytes>((resolve, reject) => {
      this.slices.set(id, { digest, most: length, parts: [], next: offset, left: 0, resolve, reject });
    });
    data.catch(() => undefined);
    try {
      const head = await this.request("get_blob", { digest, offset, length }, "blob_slice", signal);
      if (head.digest !== digest || head.offset !== offset || head.size !== size || head.length < 1) {
        throw new SignalingUntrustedError(this.url, `blob ${short(digest)} has ${head.size} bytes, expected ${size}`);
      }
      return await data;
    } finally {
      this.slices.delete(id);
    }
  }

  private adopt({ socket, queue, closed }: Inbox): void {
    this.socket = socket;
    socket.onmessage = ({ data }) => this.onFrame(data);
    socket.onclose = ({ code, reason }) => this.lost(reason || `closed with code ${code}`);
    for (const frame of queue) this.onFrame(frame); // what came while the welcome was checked
    if (closed !== null) this.lost(closed);
  }

  private onFrame(data: unknown): void {
    try {
      if (typeof data === "string") this.onMessage(decodeServerMessage(data));
      else this.onPart(new Uint8Array(data as ArrayBuffer));
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.socket?.close(BROKEN_PROTOCOL);
      this.end(new SignalingUntrustedError(this.url, `broke the protocol: ${error.message}`));
    }
  }

  private onMessage(message: ServerMessage): void {
    if (message.type === "error") this.onError(message);
    else if ("re" in message) this.onReply(message);
    else if (message.type === "challenge" || message.type === "welcome") {
      throw new ProtocolError(`a ${message.type} came after the handshake`);
    } else {
      this.note(message);
      this.options.onEvent(message);
    }
  }

  private onError(message: ServerMessages["error"]): void {
    const error = new SignalingRefusedError(this.url, message.code, message.message);
    if (message.re === null) {
      if (FINAL_CODES.has(message.code)) this.end(error);
      return; // otherwise the connection closes, and is made again
    }
    const to = this.relays.get(message.re);
    if (to !== undefined) {
      this.relays.delete(message.re);
      this.options.onEvent({ type: "relay_failed", to, code: message.code });
      return;
    }
    this.settle(message.re)?.reject(error);
  }

  private onReply(reply: Reply & { readonly re: number }): void {
    if (reply.type === "blob_slice") {
      const slice = this.slices.get(reply.re);
      if (slice !== undefined) {
        if (reply.length > slice.most) throw new ProtocolError(`a slice of ${reply.length} bytes, asked for were ${slice.most}`);
        slice.left = reply.length;
        this.arriving = slice;
      }
    }
    this.settle(reply.re)?.resolve(reply);
  }

  private settle(id: number): Waiting | undefined {
    const waiting = this.waiting.get(id);
    if (waiting !== undefined) {
      clearTimeout(waiting.timer);
      this.waiting.delete(id);
    }
    return waiting;
  }

  private onPart(frame: Bytes): void {
    const part = decodeBlobPart(frame);
    const slice = this.arriving;
    if (slice === null || part.digest !== slice.digest || part.offset !== slice.next || part.data.length > slice.left) {
      throw new ProtocolError("a blob part came that was not asked for");
    }
    slice.parts.push(part.data.slice());
    slice.next += part.data.length;
    slice.left -= part.data.length;
    if (slice.left > 0) return;
    this.arriving = null;
    slice.resolve(concat(...slice.parts));
  }

  /** Let decided rounds and ended runs go. */
  private note(event: Event): void {
    if (event.type === "round_logged") {
      const kept = this.results.get(event.entry.run);
      if (kept !== undefined && kept.round <= event.entry.round) this.results.delete(event.entry.run);
    } else if (event.type === "run_changed" && ["finished", "stopped", "failed"].includes(event.status.state)) {
      this.accepted.delete(event.status.run);
      this.results.delete(event.status.run);
    }
  }

  private lost(reason: string): void {
    if (this.socket === null || this.isClosed) return;
    this.socket = null;
    this.arriving = null;
    for (const slice of this.slices.values()) slice.reject(new SignalingDownError(this.url, "the connection was lost"));
    this.relays.clear();
    this.options.onEvent({ type: "disconnected", reason });
    this.redial(FIRST_BACKOFF_MS);
  }

  /** Full jitter, so that a restarted signaling server is not met by all its peers at once. */
  private redial(bound: number): void {
    this.backoff = setTimeout(() => {
      dial(this.options).then(
        (inbox) => (this.isClosed ? inbox.socket.close() : this.resume(inbox)),
        (error: NodeError) => {
          if (error instanceof SignalingDownError) this.redial(Math.min(2 * bound, LONGEST_BACKOFF_MS));
          else this.end(error);
        },
      );
    }, Math.random() * bound);
  }

  private resume(inbox: Inbox): void {
    this.adopt(inbox);
    const say = (message: PeerMessage) => inbox.socket.send(encodePeerMessage(message));
    if (this.registration !== null) say({ type: "register", id: ++this.nextId, ...this.registration });
    for (const fields of this.accepted.values()) say({ type: "accept", id: ++this.nextId, ...fields });
    for (const fields of this.results.values()) say({ type: "result", id: ++this.nextId, ...fields });
    for (const { request } of this.waiting.values()) say(request);
    this.options.onEvent({ type: "reconnected" });
  }

  private end(error: NodeError | null): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.error = error;
    if (this.backoff !== null) clearTimeout(this.backoff);
    if (this.ticker !== null) clearInterval(this.ticker);
    const reason = error ?? new SignalingDownError(this.url, "the session is closed");
    for (const id of [...this.waiting.keys()]) this.settle(id)?.reject(reason);
    for (const slice of this.slices.values()) slice.reject(reason);
    this.socket?.close(1000);
    this.socket = null;
    this.options.onEvent({ type: "ended", error });
  }
}
