/** Authors whose runs this device has accepted before; a refusal is not written down. */

import type { PeerId } from "../protocol/identity.js";

const KEY = "peerplan.accepted-authors";
const MOST = 1000;

/** Whether a run of this author was accepted here before. */
export function isKnown(author: PeerId): boolean {
  return read().includes(author);
}

/** Remember an author whose run was accepted. */
export function remember(author: PeerId): void {
  const others = read().filter((known) => known !== author);
  localStorage.setItem(KEY, JSON.stringify([...others, author].slice(-MOST)));
}

/** Forget all of them. */
export function forgetAll(): void {
  localStorage.removeItem(KEY);
}

function read(): string[] {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(found) ? found.filter((item) => typeof item === "string") : [];
  } catch {
    return [];
  }
}
