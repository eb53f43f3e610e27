/**
 * Messages in frames on a link (spec 04 §5): one data-channel message in, at most one message out.
 *
 * A frame is at most 64 KiB: u8 version and kind, u8 flags (1 FIRST, 2 LAST), u16 zero, u32 message number, in a FIRST
 * frame u32 total bytes of the message, then payload. Frames of different classes may alternate, so a vote does not
 * wait behind a chunk; a receiver keeps at most one unfinished message per class and knows its size beforehand.
 */

import type { Bytes } from "../bytes.js";
import { LimitExceededError, LinkError } from "../errors.js";

export const FRAME_MAX_BYTES = 65_536;
export const FRAME_MIN_BYTES = 1_024;
export const CONTROL_MAX_BYTES = 65_536;
const LINK_VERSION = 1;
const FIRST = 1;
const LAST = 2;
const HEADER_BYTES = 8;
const FIRST_HEADER_BYTES = 12;

/** What a message is for (spec 04 §5.2). */
export const Kind = { HELLO: 1, CONTROL: 2, BULK: 3, MODEL: 4, PING: 5, BYE: 6 } as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

/** Messages of one class never interleave; messages of two classes may. */
export type LinkClass = "control" | "bulk" | "model";

/** The largest message each open class accepts, in bytes; 0 refuses the class. */
export interface Limits {
  readonly bulkBytes: number;
  readonly modelBytes: number;
}

/** A whole message as it came. */
export interface LinkMessage {
  readonly kind: Kind;
  readonly payload: Bytes;
}

/** The class of a kind. */
export function classOf(kind: Kind): LinkClass {
  return kind === Kind.BULK ? "bulk" : kind === Kind.MODEL ? "model" : "control";
}

/** The largest message of a kind, in bytes. */
export function limitOf(kind: Kind, limits: Limits): number {
  switch (kind) {
    case Kind.HELLO:
      return 224;
    case Kind.CONTROL:
      return CONTROL_MAX_BYTES;
    case Kind.BULK:
      return limits.bulkBytes;
    case Kind.MODEL:
      return limits.modelBytes;
    case Kind.PING:
      return 9;
    case Kind.BYE:
      return 201;
  }
}

/** A message on its way out. */
export class OutgoingMessage {
  number: number | null = null;
  sentBytes = 0;

  constructor(
    readonly kind: Kind,
    readonly payload: Bytes,
  ) {
    if (payload.length === 0) throw new LinkError("a link message has at least 1 byte");
  }

  get isFinished(): boolean {
    return this.sentBytes === this.payload.length;
  }
}

/** Cuts one direction's messages into frames; numbers are given in the order in which messages start. */
export class FrameEncoder {
  private next = 0;
  private readonly max: number;
  private readonly open = new Map<LinkClass, OutgoingMessage>();

  /**
   * @param maxFrameBytes the largest frame the other side accepts.
   * @throws LinkError smaller than every implementation must accept.
   */
  constructor(maxFrameBytes: number = FRAME_MAX_BYTES) {
    if (maxFrameBytes < FRAME_MIN_BYTES) {
      throw new LinkError(`link frames need ${FRAME_MIN_BYTES} bytes, the other side accepts ${maxFrameBytes}`);
    }
    this.max = Math.min(maxFrameBytes, FRAME_MAX_BYTES);
  }

  /** The message of a class of which some but not all frames were made. */
  unfinished(of: LinkClass): OutgoingMessage | null {
    return this.open.get(of) ?? null;
  }

  /**
   * The next frame of a message; call again until it is finished.
   *
   * @throws LinkError another message of its class has not ended.
   */
  frame(message: OutgoingMessage): Bytes {
    const of = classOf(message.kind);
    const other = this.open.get(of);
    if (other !== undefined && other !== message) throw new LinkError(`message ${other.number} of class ${of} has not ended`);
    const isFirst = message.number === null;
    const headerBytes = isFirst ? FIRST_HEADER_BYTES : HEADER_BYTES;
    const end = Math.min(message.payload.length, message.sentBytes + this.max - headerBytes);
    const isLast = end === message.payload.length;
    if (message.number === null) {
      message.number = this.next;
      this.next = (this.next + 1) >>> 0;
    }
    const frame = new Uint8Array(headerBytes + end - message.sentBytes);
    const view = new DataView(frame.buffer);
    view.setUint8(0, (LINK_VERSION << 4) | message.kind);
    view.setUint8(1, (isFirst ? FIRST : 0) | (isLast ? LAST : 0));
    view.setUint32(4, message.number, true);
    if (isFirst) view.setUint32(8, message.payload.length, true);
    frame.set(message.payload.subarray(message.sentBytes, end), headerBytes);
    message.sentBytes = end;
    if (isLast) this.open.delete(of);
    else this.open.set(of, message);
    return frame;
  }
}

interface Partial {
  readonly kind: Kind;
  readonly number: number;
  readonly data: Bytes;
  filled: number;
}

/** Puts one direction's frames together. `limits` may change at any time. */
export class FrameDecoder {
  private next = 0;
  private readonly partials = new Map<LinkClass, Partial>();

  constructor(public limits: Limits) {}

  /**
   * Take one frame; gives the message it completes, or null.
   *
   * @throws LinkError, LimitExceededError a rule is broken; the link must end.
   */
  receive(frame: Bytes): LinkMessage | null {
    if (frame.length > FRAME_MAX_BYTES) {
      throw new LimitExceededError(`link frame: ${frame.length} bytes, at most ${FRAME_MAX_BYTES} are accepted`);
    }
    if (frame.length <= HEADER_BYTES) throw new LinkError(`link frame: ${frame.length} bytes are no header and payload`);
    const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
    const [head, flags] = [view.getUint8(0), view.getUint8(1)];
    const kind = Object.values(Kind).find((known) => ((LINK_VERSION << 4) | known) === head);
    if (kind === undefined) throw new LinkError(`link frame: expected version ${LINK_VERSION} and a kind of 1 to 6, got ${head}`);
    if (view.getUint16(2) !== 0 || flags > (FIRST | LAST)) throw new LinkError("link frame: reserved bits must be zero");
    const number = view.getUint32(4, true);
    const isLast = (flags & LAST) !== 0;
    if ((flags & FIRST) === 0) return this.continued(kind, number, isLast, frame);
    if (frame.length <= FIRST_HEADER_BYTES) throw new LinkError("link frame: no total and payload in a first frame");
    return this.first(kind, number, view.getUint32(8, true), isLast, frame);
  }

  private first(kind: Kind, number: number, total: number, isLast: boolean, frame: Bytes): LinkMessage | null {
    if (number !== this.next) throw new LinkError(`link message: expected number ${this.next}, got ${number}`);
    const limit = limitOf(kind, this.limits);
    if (total > limit) {
      throw new LimitExceededError(`link message of kind ${kind}: ${total} bytes announced, limit ${limit}`);
    }
    const of = classOf(kind);
    const unfinished = this.partials.get(of);
    if (unfinished !== undefined) {
      throw new LinkError(`link message ${number} begins before message ${unfinished.number} of its class has ended`);
    }
    this.next = (this.next + 1) >>> 0;
    if (isLast && frame.length - FIRST_HEADER_BYTES === total) {
      return { kind, payload: frame.subarray(FIRST_HEADER_BYTES) };
    }
    const partial = { kind, number, data: new Uint8Array(total), filled: 0 };
    this.partials.set(of, partial);
    this.fill(partial, frame, FIRST_HEADER_BYTES, isLast);
    return null;
  }

  private continued(kind: Kind, number: number, isLast: boolean, frame: Bytes): LinkMessage | null {
    const of = classOf(kind);
    const partial = this.partials.get(of);
    if (partial === undefined || partial.number !== number || partial.kind !== kind) {
      throw new LinkError(`link frame continues message ${number}, unfinished in its class is ${partial?.number ?? "none"}`);
    }
    this.fill(partial, frame, HEADER_BYTES, isLast);
    if (!isLast) return null;
    this.partials.delete(of);
    return { kind, payload: partial.data };
  }

  private fill(partial: Partial, frame: Bytes, headerBytes: number, isLast: boolean): void {
    const end = partial.filled + frame.length - headerBytes;
    const total = partial.data.length;
    if (!isLast && frame.length < FRAME_MIN_BYTES) {
      throw new LinkError(`link frame: ${frame.length} bytes, all but the last have at least ${FRAME_MIN_BYTES}`);
    }
    if (isLast ? end !== total : end >= total) {
      throw new LinkError(`link message ${partial.number}: ${total} bytes announced, ${end} came`);
    }
    partial.data.set(frame.subarray(headerBytes), partial.filled);
    partial.filled = end;
  }
}
