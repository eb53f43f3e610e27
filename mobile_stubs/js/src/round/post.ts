/** Sending: what goes over which link, what goes again when a link comes back, and the list of actions. */

import { type Bits, has } from "../protocol/bits.js";
import type { Bytes } from "../protocol/bytes.js";
import type { Identity } from "../protocol/identity.js";
import type { Action, Persist } from "./actions.js";
import type { Codec } from "./codec.js";
import { BULK, type Chunk, type Message, type Received } from "./messages.js";

/** Times everything is sent again to one peer: a link that flaps must not multiply the traffic without end. */
const MAX_RESENDS = 16;

/** What waits for a peer: bytes, or a chunk that is encoded when it is sent, so the masked vector is kept once. */
type Item = Chunk | { readonly raw: Bytes; readonly bulk: boolean };

/** What is known of the link to one other peer in this attempt. */
export class LinkState {
  /** SHA-256 of the certificate of the live link; null before there was one. */
  fingerprint: Bytes | null = null;
  up = false;
  lost = false;
  left = false;
  resends = 0;
  readonly outbox: Item[] = [];

  /** Whether waiting for this peer makes sense: a link that never opened may still open. */
  get live(): boolean {
    return !this.lost && !this.left;
  }
}

/** Encodes, signs and addresses this peer's messages; its own broadcasts come back through `onOwn`. */
export class Post {
  /** Links by index, without this peer's own. */
  readonly links: ReadonlyMap<number, LinkState>;
  actions: Action[] = [];
  /** The roster, once there is one; before, everybody is spoken to. */
  audience: Bits | null = null;
  onOwn: (received: Received) => Promise<void> = async () => {};

  constructor(
    readonly codec: Codec,
    private readonly identity: Identity,
    private readonly ownIndex: number,
    size: number,
  ) {
    const others = Array.from({ length: size }, (_, index) => index).filter((index) => index !== ownIndex);
    this.links = new Map(others.map((index) => [index, new LinkState()]));
  }

  /** The link to another peer of the cohort. */
  link(index: number): LinkState {
    const found = this.links.get(index);
    if (found === undefined) throw new RangeError(`there is no link to index ${index}`);
    return found;
  }

  /** A link opened: everything that was meant for it goes out, in order and as before. */
  async open(index: number, fingerprint: Bytes): Promise<void> {
    const link = this.link(index);
    link.fingerprint = fingerprint;
    if (link.up) return;
    link.up = true;
    link.lost = false;
    link.resends++;
    if (link.resends > MAX_RESENDS) {
      link.left = true;
      this.report(index, `the link to peer ${index} broke more than ${MAX_RESENDS} times`);
      return;
    }
    for (const item of link.outbox) await this.emit(index, item);
  }

  /** A link is gone; what is sent meanwhile waits. */
  close(index: number): void {
    const link = this.link(index);
    link.up = false;
    link.lost = true;
  }

  /** Send one message; to this peer itself it is handed over. */
  async send(to: number, message: Message): Promise<void> {
    if (to === this.ownIndex) await this.onOwn(await this.encode(message));
    else if (message.type === "chunk") await this.put(to, message);
    else await this.put(to, { raw: (await this.encode(message)).raw, bulk: BULK.has(message.type) });
  }

  /** Send to everyone in the roster (the cohort before there is one), and to this peer itself. */
  async broadcast(message: Message, options: { toSelf?: boolean } = {}): Promise<void> {
    const encoded = await this.encode(message);
    await this.relayAll(encoded.raw, BULK.has(message.type));
    if (options.toSelf !== false) await this.onOwn(encoded);
  }

  /** Pass bytes on unchanged. */
  async relay(to: number, raw: Bytes, bulk: boolean): Promise<void> {
    await this.put(to, { raw, bulk });
  }

  /** Pass bytes on to the audience, `leaveOut` excepted. */
  async relayAll(raw: Bytes, bulk: boolean, leaveOut: number | null = null): Promise<void> {
    for (const index of this.links.keys()) {
      const listens = this.audience === null || has(this.audience, index);
      if (listens && index !== leaveOut) await this.put(index, { raw, bulk });
    }
  }

  /** A message of this peer, signed where its type is. */
  encode(message: Message): Promise<Received> {
    return this.codec.encode(this.ownIndex, message, this.identity);
  }

  /** Have a line written down durably before anything that follows. */
  persist(entry: Persist["entry"], detail: string): void {
    this.actions.push({ action: "persist", entry, detail });
  }

  /** Tell the shell of a refused message. */
  report(peer: number, reason: string): void {
    this.actions.push({ action: "misbehaviour", peer, reason });
  }

  private async put(to: number, item: Item): Promise<void> {
    const link = this.link(to);
    link.outbox.push(item);
    if (link.up) await this.emit(to, item);
  }

  private async emit(to: number, item: Item): Promise<void> {
    const sent = "raw" in item ? item : { raw: (await this.encode(item)).raw, bulk: true };
    this.actions.push({ action: "send", to, data: sent.raw, bulk: sent.bulk });
  }
}
