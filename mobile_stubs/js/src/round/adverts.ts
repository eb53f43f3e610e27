/** What an ADVERT's keys must not be (spec 07 §4). */

import { type Bytes, equalBytes } from "../protocol/bytes.js";
import { MessageError } from "../protocol/errors.js";
import type { Advert } from "./messages.js";

/**
 * Check that an advert's two keys differ from each other and from others' keys.
 *
 * @throws MessageError one is used already.
 */
export function checkAdvertKeys(advert: Advert, sender: number, taken: readonly Bytes[]): void {
  const repeats = taken.some((key) => equalBytes(key, advert.maskPublic) || equalBytes(key, advert.encPublic));
  if (repeats || equalBytes(advert.maskPublic, advert.encPublic)) {
    throw new MessageError(`peer ${sender} advertised a key that is already used in this round`);
  }
}
