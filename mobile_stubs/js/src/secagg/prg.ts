/** The mask generator (spec 07 §2): AES-256-CTR keystream, seekable, equal to AES-256-GCM of zeros. */

import type { Bytes } from "../protocol/bytes.js";
import { counterEncrypt, counterKey } from "../protocol/crypto.js";
import { ProtocolError } from "../protocol/errors.js";
import type { Words } from "./packing.js";

/** Elements expanded at once: 512 KiB of keystream per call, which hides the cost of WebCrypto's round trip. */
export const TILE = 1 << 17;

const FIRST_BLOCK = 2;
const ZEROS = new Uint8Array(4 * TILE);

if (new Uint8Array(Uint32Array.of(1).buffer)[0] !== 1) {
  throw new ProtocolError("this processor is big-endian: typed arrays would give other masks than other peers'");
}

/** A mask generator of one key. */
export class MaskStream {
  private constructor(private readonly key: CryptoKey) {}

  /** The generator of a 32-byte key. */
  static async of(key: Bytes): Promise<MaskStream> {
    return new MaskStream(await counterKey(key));
  }

  /**
   * Elements `start` (a multiple of four) to `start + count` (at most TILE) as full 32-bit words; the caller keeps
   * the low k bits.
   */
  async words(start: number, count: number): Promise<Words> {
    if (start % 4 !== 0) throw new RangeError(`a mask starts at a multiple of 4 elements, got ${start}`);
    return new Uint32Array(await counterEncrypt(this.key, FIRST_BLOCK + start / 4, ZEROS.subarray(0, 4 * count)));
  }
}

/** A stream of 24-bit random integers from 32 random bytes, for rounding. Each value is given once. */
export async function roundingStream(key: Bytes): Promise<(count: number) => Promise<Words>> {
  const aes = await counterKey(key);
  let block = 0;
  return async (count) => {
    const out = new Uint32Array(count);
    for (let at = 0; at < count; at += TILE) {
      const size = Math.min(TILE, count - at);
      const padded = Math.ceil(size / 4) * 16;
      const words = new Uint32Array(await counterEncrypt(aes, block, ZEROS.subarray(0, padded)));
      block += padded / 16;
      for (let i = 0; i < size; i++) out[at + i] = (words[i] as number) >>> 8;
    }
    return out;
  };
}
