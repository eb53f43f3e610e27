/** Equality of messages: by what they say, not by how they are signed. */

import { equalBytes } from "../protocol/bytes.js";
import type { Received } from "./messages.js";

/** Whether two messages are by one peer and say the same. */
export function sameBody(a: Received, b: Received): boolean {
  return equalBytes(unsigned(a), unsigned(b));
}

function unsigned(received: Received): Uint8Array {
  return received.raw.subarray(0, received.raw.length - received.signature.length);
}
