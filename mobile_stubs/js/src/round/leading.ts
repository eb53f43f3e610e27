/** What a leader decides from what it was told (spec 07 §5, §7): pure functions. */

import { type Bits, bit, bitsOf, count, has, indexesOf, NONE } from "../protocol/bits.js";
import type { ChunkPlan } from "../secagg/parameters.js";

/** What a peer said it holds: commits, and contributions by chunk. */
export interface Holdings {
  readonly commits: Bits;
  readonly chunks: ReadonlyMap<number, Bits>;
}

/**
 * A set in which everyone holds everyone's shares; `acks` maps a peer to the senders it holds. The peer that misses
 * or is missed most leaves first, so one bad peer costs itself and not the others.
 */
export function chooseMaskSet(acks: ReadonlyMap<number, Bits>): Bits {
  const members = new Set(acks.keys());
  while (members.size > 0) {
    const wanted = bitsOf(members);
    const misses = new Map([...members].map((peer) => [peer, 0]));
    for (const peer of members) {
      const absent = indexesOf(wanted & ~((acks.get(peer) ?? NONE) | bit(peer)));
      misses.set(peer, (misses.get(peer) ?? 0) + absent.length);
      for (const other of absent) misses.set(other, (misses.get(other) ?? 0) + 1);
    }
    const [worst, times] = [...misses].sort(([a, x], [b, y]) => y - x || a - b)[0] as [number, number];
    if (times === 0) break;
    members.delete(worst);
  }
  return bitsOf(members);
}

/** Peers whose commit is held and each of whose chunks is held by one owner that answered. */
export function chooseSurvivors(
  commits: Bits,
  haves: ReadonlyMap<number, Holdings>,
  plan: ChunkPlan,
  owners: ReadonlyMap<number, readonly number[]>,
): Bits {
  let survivors = commits & bitsOf(plan.peers);
  for (let chunk = 0; chunk < plan.count; chunk++) {
    let best = NONE;
    for (const owner of owners.get(chunk) ?? []) {
      const held = (haves.get(owner)?.chunks.get(chunk) ?? NONE) & survivors;
      if (count(held) > count(best)) best = held;
    }
    survivors = best;
  }
  return survivors;
}

/** The first present peer after a chunk's owners, in index order, that does not own it yet. */
export function nextOwner(plan: ChunkPlan, owners: readonly number[], present: Bits): number | null {
  const at = Math.max(0, plan.peers.indexOf(owners[owners.length - 1] ?? -1));
  for (let step = 1; step <= plan.peers.length; step++) {
    const peer = plan.peers[(at + step) % plan.peers.length] as number;
    if (has(present, peer) && !owners.includes(peer)) return peer;
  }
  return null;
}
