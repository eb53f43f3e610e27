/** Dialling a signaling server: a connected socket on which both sides have proven who they are (spec 03 §3). */

import { short } from "../protocol/bytes.js";
import { ProtocolError } from "../protocol/errors.js";
import type { Identity } from "../protocol/identity.js";
import { checkWelcome, signAuthenticate } from "../protocol/signaling/handshake.js";
import {
  audienceOf,
  decodeServerMessage,
  encodePeerMessage,
  type ServerMessages,
  SIGNALING_VERSION,
} from "../protocol/signaling/messages.js";
import { SignalingDownError, SignalingRefusedError, SignalingUntrustedError } from "./errors.js";
import type { Platform, Socket } from "./platform.js";

const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Frames that may come before the handshake is over. */
const MAX_EARLY_FRAMES = 64;

/** How a signaling server is reached. `expectedServer` is the peer id to pin; without it TLS alone is trusted. */
export interface DialOptions {
  readonly url: string;
  readonly identity: Identity;
  readonly openSocket: Platform["openSocket"];
  readonly expectedServer: string | null;
  /** Ends what `start` has begun. */
  readonly signal: AbortSignal | null;
}

/**
 * Connect and authenticate both sides.
 *
 * @throws SignalingDownError, SignalingRefusedError, SignalingUntrustedError there is no session to be had.
 */
export async function dial(options: DialOptions): Promise<Inbox> {
  const { url, identity, signal } = options;
  const audience = audienceOf(url);
  signal?.throwIfAborted();
  const inbox = new Inbox(url, openSocket(options));
  const stop = () => inbox.close("the owner stopped the node");
  signal?.addEventListener("abort", stop);
  try {
    const challenge = await inbox.next("challenge");
    if (options.expectedServer !== null && challenge.server !== options.expectedServer) {
      const expected = short(options.expectedServer);
      throw new SignalingUntrustedError(url, `its identity is ${short(challenge.server)}, expected ${expected}`);
    }
    if (!challenge.versions.includes(SIGNALING_VERSION)) {
      const reason = `it speaks versions ${challenge.versions.join(", ")}, this peer ${SIGNALING_VERSION}`;
      throw new SignalingRefusedError(url, "version-mismatch", reason);
    }
    const answer = await signAuthenticate(identity, challenge, audience);
    inbox.socket.send(encodePeerMessage(answer));
    await checkWelcome(challenge, answer, await inbox.next("welcome"));
    inbox.finish();
    return inbox;
  } catch (error) {
    inbox.fail();
    signal?.throwIfAborted();
    if (error instanceof ProtocolError) throw new SignalingUntrustedError(url, error.message);
    throw error;
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}

function openSocket(options: DialOptions): Socket {
  try {
    return options.openSocket(options.url);
  } catch (error) {
    throw new SignalingDownError(options.url, String(error)); // a page over https:// may not dial ws://
  }
}

/** Reads the two messages of the handshake. */
export class Inbox {
  readonly queue: unknown[] = [];
  closed: string | null = null;
  private wake: (() => void) | null = null;
  private readonly timer: ReturnType<typeof setTimeout>;

  constructor(
    private readonly url: string,
    readonly socket: Socket,
  ) {
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (this.queue.length < MAX_EARLY_FRAMES) this.queue.push(data);
      else this.close(`more than ${MAX_EARLY_FRAMES} frames came before the handshake was over`);
      this.wake?.();
    };
    socket.onclose = ({ code, reason }) => this.close(`cannot connect, or closed with code ${code} ${reason}`.trim());
    socket.onerror = () => undefined; // a close follows
    this.timer = setTimeout(() => this.close(`no handshake within ${HANDSHAKE_TIMEOUT_MS / 1000} s`), HANDSHAKE_TIMEOUT_MS);
  }

  async next<T extends "challenge" | "welcome">(type: T): Promise<ServerMessages[T]> {
    while (this.queue.length === 0) {
      if (this.closed !== null) throw new SignalingDownError(this.url, this.closed);
      await new Promise<void>((resolve) => (this.wake = resolve));
    }
    const frame = this.queue.shift();
    if (typeof frame !== "string") throw new SignalingUntrustedError(this.url, "sent a binary frame during the handshake");
    const message = decodeServerMessage(frame);
    if (message.type === "error") throw new SignalingRefusedError(this.url, message.code, message.message);
    if (message.type !== type) throw new SignalingUntrustedError(this.url, `expected a ${type}, got ${message.type}`);
    return message as ServerMessages[T];
  }

  finish(): void {
    clearTimeout(this.timer);
  }

  fail(): void {
    clearTimeout(this.timer);
    this.socket.onclose = null;
    this.socket.onmessage = null;
    this.socket.close();
  }

  close(reason: string): void {
    this.closed ??= reason;
    this.wake?.();
  }
}
