/** How often an owner is told of refused messages of one peer: a flood of them must not become a flood of events. */

import type { PeerId } from "../protocol/identity.js";

const MAX_TOLD = 64;
const MAX_PEERS = 256;

/** Counts what was told of each peer; who was forgotten among many others counts anew. */
export class Refusals {
  private readonly told = new Map<PeerId, number>();

  /** Whether the owner hears of one more refused message of a peer. */
  mayTell(peer: PeerId): boolean {
    const count = this.told.get(peer) ?? 0;
    if (count >= MAX_TOLD) return false;
    this.told.set(peer, count + 1);
    if (this.told.size > MAX_PEERS) this.told.delete(this.told.keys().next().value as PeerId);
    return true;
  }

  /** A new round: everybody counts anew. */
  clear(): void {
    this.told.clear();
  }
}
