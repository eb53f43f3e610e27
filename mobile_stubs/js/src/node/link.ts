/** One open channel to one peer: HELLO, frames both ways, liveness, orderly end (spec 04 §4 to §6). */

import { type Bytes, concat, short, utf8 } from "../protocol/bytes.js";
import { LimitExceededError, LinkError, ProtocolError } from "../protocol/errors.js";
import type { Identity } from "../protocol/identity.js";
import { FrameDecoder, Kind, type Limits, type LinkMessage } from "../protocol/link/framing.js";
import { type LinkView, sealHello, verifyHello } from "../protocol/link/hello.js";
import { Outbox } from "./outbox.js";
import type { RtcConnection } from "./platform.js";
import type { RunningClock } from "./running-clock.js";

/** Why a side ends a link (spec 04 §6). */
export const Bye = { GOING: 0, REFUSED: 1, REPLACED: 2 } as const;
export type Bye = (typeof Bye)[keyof typeof Bye];

const PING_AFTER_MS = 750;
/** Silence after which a link is dead where signaling lost its peer too. */
const GONE_AFTER_MS = 2_500;
/** Silence after which it is dead anyway: until then its peer may only be slow. Rounds give up waiting after 10 s. */
const DEAD_AFTER_MS = 7_000;
/** What is heard of a peer so long after signaling lost it may have been sent before. */
const ON_THE_WAY_MS = 1_000;
const CLOSE_TIMEOUT_MS = 500;
const CHANNEL_HIGH_BYTES = 256 << 10;
/** The channel is fed again when no more than so many bytes are left in it. */
export const CHANNEL_LOW_BYTES = 128 << 10;
const PING_BYTES = 9;
const BYE_TEXT_BYTES = 200;

/** Bytes of data-channel traffic, frame headers included. */
export interface Traffic {
  sent: number;
  received: number;
}

/** What a link reports; `onEnd` comes exactly once and last. */
export interface LinkEvents {
  onReady(): void;
  onMessage(kind: Kind, payload: Bytes): void;
  onEnd(reason: string, retry: boolean): void;
  /** The other side broke a rule, or what it sent found a defect here; the link ends. */
  onFault(reason: string): void;
}

/** States: greeting (our HELLO is out), ready (theirs was right), over. */
export class Link {
  isReady = false;
  lastHeard: number;
  private isOver = false;
  private isPinged = false;
  private lostAt: number | null = null;
  private turn: Promise<void> = Promise.resolve();
  private readonly decoder: FrameDecoder;
  private readonly outbox: Outbox;
  private drained: { resolve(): void; reject(error: Error): void }[] = [];

  constructor(
    private readonly rtc: RtcConnection,
    readonly view: LinkView,
    limits: Limits,
    private readonly traffic: Traffic,
    private readonly events: LinkEvents,
    private readonly clock: RunningClock,
  ) {
    this.lastHeard = clock.now();
    this.decoder = new FrameDecoder(limits);
    this.outbox = new Outbox(rtc.maxMessageBytes);
  }

  /** Send HELLO; to be called once, when the channel has just opened. */
  async greet(identity: Identity): Promise<void> {
    const hello = await sealHello(identity, this.view);
    if (!this.isOver) this.enqueue(Kind.HELLO, hello);
  }

  /** Accept messages up to these sizes from now on. */
  setLimits(limits: Limits): void {
    this.decoder.limits = limits;
  }

  /**
   * Queue a message and send what the channel takes now.
   *
   * @throws LinkError the link is not ready.
   * @throws LimitExceededError too much waits already.
   */
  send(kind: Kind, payload: Bytes): void {
    if (!this.isReady || this.isOver) throw new LinkError(`the link to ${short(this.view.remote)} carries no messages`);
    this.enqueue(kind, payload);
  }

  /** Wait until all that was sent has left the queue and the channel's buffer is low. */
  drain(): Promise<void> {
    if (this.isOver) return Promise.reject(new LinkError(`the link to ${short(this.view.remote)} ended before all was sent`));
    if (this.isDrained()) return Promise.resolve();
    return new Promise((resolve, reject) => this.drained.push({ resolve, reject }));
  }

  /** Take one data-channel message; a broken rule ends the link with its reason. */
  receive(frame: Bytes): void {
    this.traffic.received += frame.length;
    if (this.isOver) return;
    this.lastHeard = this.clock.now();
    this.isPinged = false;
    try {
      const message = this.decoder.receive(frame);
      // messages wait for the check of the HELLO before them, which WebCrypto does asynchronously
      if (message !== null) this.turn = this.turn.then(() => this.dispatch(message));
    } catch (error) {
      this.refuse(error);
    }
  }

  /** The channel's buffer is low: feed it. */
  writable(): void {
    this.pump(false);
  }

  /** The transport went away. */
  channelEnded(reason: string): void {
    this.end(reason, true);
  }

  /** Signaling has no session with the peer any more: if it falls silent too, its process is gone. */
  signalingLost(): void {
    this.lostAt = this.clock.now();
  }

  /** Signaling has a session with the peer again: if it falls silent, it may only be slow. */
  signalingRegained(): void {
    this.lostAt = null;
  }

  /** Look after liveness; `now` is the clock's. */
  tick(now: number): void {
    const silent = now - this.lastHeard;
    const isLost = this.lostAt !== null && this.lastHeard < this.lostAt + ON_THE_WAY_MS;
    if (silent >= DEAD_AFTER_MS || (isLost && silent >= GONE_AFTER_MS)) {
      const also = isLost ? ", signaling lost it too" : "";
      this.end(`${short(this.view.remote)} was silent for ${(silent / 1000).toFixed(1)} s${also}`, true);
    } else if (silent >= PING_AFTER_MS && this.isReady && !this.isPinged) {
      this.isPinged = true;
      const ping = new Uint8Array(PING_BYTES);
      new DataView(ping.buffer).setBigUint64(1, BigInt(Math.floor(now * 1000)), true);
      this.ask(ping);
    }
  }

  /** Say goodbye and end; whatever still waits is thrown away. */
  close(reason: string, code: Bye = Bye.GOING): void {
    if (this.isOver) return;
    if (this.rtc.isOpen) {
      this.outbox.finishWith(Kind.BYE, concat(Uint8Array.of(code), utf8(reason).slice(0, BYE_TEXT_BYTES)));
      this.pump(true);
    }
    this.end(reason, false, CLOSE_TIMEOUT_MS);
  }

  private async dispatch(message: LinkMessage): Promise<void> {
    if (this.isOver) return;
    try {
      await this.take(message);
    } catch (error) {
      this.refuse(error);
    }
  }

  private async take({ kind, payload }: LinkMessage): Promise<void> {
    if (kind === Kind.HELLO) {
      if (this.isReady) throw new LinkError("a second HELLO came");
      await verifyHello(payload, this.view);
      if (this.isOver) return;
      this.isReady = true;
      this.events.onReady();
    } else if (!this.isReady) throw new LinkError(`expected HELLO first, got kind ${kind}`);
    else if (kind === Kind.PING) this.answerPing(payload);
    else if (kind === Kind.BYE) this.goodbye(payload);
    else this.events.onMessage(kind, payload);
  }

  private answerPing(payload: Bytes): void {
    if (payload.length !== PING_BYTES || (payload[0] ?? 0) > 1) {
      throw new LinkError(`a ping has ${PING_BYTES} bytes and begins with 0 or 1, got ${payload.length} bytes`);
    }
    // while something waits, that is the sign of life; so pings cannot fill the queue
    if (payload[0] === 0 && this.outbox.isEmpty) this.enqueue(Kind.PING, concat(Uint8Array.of(1), payload.slice(1)));
  }

  private goodbye(payload: Bytes): void {
    const names = ["going", "refused", "replaced"];
    const name = names[payload[0] ?? 0];
    if (name === undefined) throw new LinkError(`BYE with code ${payload[0]}, known are 0 to 2`);
    const text = new TextDecoder().decode(payload.subarray(1));
    this.end(`${short(this.view.remote)} ended the link (${name}): ${JSON.stringify(text)}`, false);
  }

  /** A peer that reads nothing can have the queue full: then nothing will be heard of it either. */
  private ask(ping: Bytes): void {
    try {
      this.enqueue(Kind.PING, ping);
    } catch (error) {
      if (!(error instanceof LimitExceededError)) throw error;
      this.end(`${short(this.view.remote)} was silent, and cannot be asked: ${error.message}`, true);
    }
  }

  private enqueue(kind: Kind, payload: Bytes): void {
    this.outbox.push(kind, payload);
    this.pump(false);
  }

  private pump(untilEmpty: boolean): void {
    while (!this.isOver && this.rtc.isOpen && (untilEmpty || this.rtc.bufferedBytes < CHANNEL_HIGH_BYTES)) {
      const frame = this.outbox.nextFrame();
      if (frame === null) break;
      this.traffic.sent += frame.length;
      try {
        this.rtc.send(frame);
      } catch (error) {
        // the other side may close the channel at any time, so that what was open a moment ago takes nothing now
        this.end(`the channel took no more: ${String(error)}`, !untilEmpty);
      }
    }
    if (this.drained.length === 0 || !this.isDrained()) return;
    for (const waiter of this.drained) waiter.resolve();
    this.drained = [];
  }

  private isDrained(): boolean {
    return this.outbox.isEmpty && this.rtc.bufferedBytes <= CHANNEL_LOW_BYTES;
  }

  private refuse(error: unknown): void {
    // whatever else goes wrong over a peer's bytes must not take the node down: this link ends, and the owner is told
    const blame = error instanceof ProtocolError ? "broke the link's rules" : "sent what this node cannot handle";
    const reason = `${short(this.view.remote)} ${blame}: ${error instanceof Error ? error.message : String(error)}`;
    this.events.onFault(reason);
    this.close(reason, Bye.REFUSED);
  }

  /** `lingerMs`: the goodbye gets so long to leave before the transport closes. */
  private end(reason: string, retry: boolean, lingerMs = 0): void {
    if (this.isOver) return;
    this.isOver = true;
    const error = new LinkError(`the link to ${short(this.view.remote)} ended before all was sent: ${reason}`);
    for (const waiter of this.drained) waiter.reject(error);
    this.drained = [];
    if (lingerMs > 0) setTimeout(() => this.rtc.close(), lingerMs);
    else this.rtc.close();
    this.events.onEnd(reason, retry);
  }
}
