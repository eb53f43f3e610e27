/** What waits to be sent to one peer: three lanes, one per message class, bounded; no I/O here. */

import type { Bytes } from "../protocol/bytes.js";
import { LimitExceededError } from "../protocol/errors.js";
import { classOf, FrameEncoder, type Kind, type LinkClass, OutgoingMessage } from "../protocol/link/framing.js";

const MAX_BYTES = 128 << 20;
const MAX_MESSAGES = 1 << 16;
/** Control goes before bulk and bulk before model. */
const LANES: readonly LinkClass[] = ["control", "bulk", "model"];

/** Messages in the order they leave. */
export class Outbox {
  private readonly lanes: Record<LinkClass, OutgoingMessage[]> = { control: [], bulk: [], model: [] };
  private readonly encoder: FrameEncoder;
  private messages = 0;
  private queuedBytes = 0;

  constructor(maxFrameBytes: number) {
    this.encoder = new FrameEncoder(maxFrameBytes);
  }

  get isEmpty(): boolean {
    return this.messages === 0;
  }

  /**
   * Queue a message; the payload must not change until it has left.
   *
   * @throws LimitExceededError the queue is full.
   */
  push(kind: Kind, payload: Bytes): void {
    if (this.messages >= MAX_MESSAGES || this.queuedBytes + payload.length > MAX_BYTES) {
      throw new LimitExceededError(
        `${this.messages} messages of ${this.queuedBytes} bytes wait for the peer, ${payload.length} bytes more do not fit`,
      );
    }
    this.lanes[classOf(kind)].push(new OutgoingMessage(kind, payload));
    this.messages++;
    this.queuedBytes += payload.length;
  }

  /** The frame to send now, or null when nothing waits. */
  nextFrame(): Bytes | null {
    const lane = LANES.find((name) => this.lanes[name].length > 0);
    if (lane === undefined) return null;
    const message = this.lanes[lane][0] as OutgoingMessage;
    const before = message.sentBytes;
    const frame = this.encoder.frame(message);
    this.queuedBytes -= message.sentBytes - before;
    if (message.isFinished) {
      this.lanes[lane].shift();
      this.messages--;
    }
    return frame;
  }

  /** Throw away what waits and end with this control message, after one of its class that was begun. */
  finishWith(kind: Kind, payload: Bytes): void {
    const begun = this.encoder.unfinished("control");
    this.lanes.bulk = [];
    this.lanes.model = [];
    this.lanes.control = begun === null ? [] : [begun];
    this.messages = this.lanes.control.length;
    this.queuedBytes = 0;
    this.push(kind, payload);
  }
}
