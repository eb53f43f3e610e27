/**
 * Round messages of peers that were told of a round a little earlier than this node.
 *
 * Adverts, rosters and shares are small; anything larger cannot come before this peer has spoken. Bounded for each peer
 * apart, so that nobody's flood takes the place of another's advert.
 */

import { type Bytes, toHex } from "../protocol/bytes.js";
import type { PeerId } from "../protocol/identity.js";

const MAX_MESSAGES = 32;
const MAX_BYTES = 1024;
const MAX_PEERS = 256;

/** The tag of a round message: the first eight bytes of its round id, as hexadecimal. */
export function tagOf(payload: Bytes): string {
  return toHex(payload.subarray(4, 12));
}

/** What waits for its round to begin here. */
export class EarlyMessages {
  private readonly byPeer = new Map<PeerId, { readonly tag: string; readonly payload: Bytes }[]>();

  /** Keep a message for a while; what does not fit is dropped, the oldest of its peer first. */
  keep(peer: PeerId, payload: Bytes, bulk: boolean): void {
    if (bulk || payload.length > MAX_BYTES) return;
    const waiting = this.byPeer.get(peer) ?? [];
    this.byPeer.set(peer, waiting);
    waiting.push({ tag: tagOf(payload), payload: payload.slice() });
    if (waiting.length > MAX_MESSAGES) waiting.shift();
    if (this.byPeer.size > MAX_PEERS) this.byPeer.delete(this.byPeer.keys().next().value as PeerId);
  }

  /** The messages of a round, in the order they came from each peer; they wait no longer. */
  take(tag: string): { readonly peer: PeerId; readonly payload: Bytes }[] {
    const found: { peer: PeerId; payload: Bytes }[] = [];
    for (const [peer, waiting] of this.byPeer) {
      for (const item of waiting) if (item.tag === tag) found.push({ peer, payload: item.payload });
      const rest = waiting.filter((item) => item.tag !== tag);
      if (rest.length > 0) this.byPeer.set(peer, rest);
      else this.byPeer.delete(peer);
    }
    return found;
  }
}
