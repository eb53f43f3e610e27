/** Masked updates: adding masks before a vector leaves, taking them off the sum (spec 07 §6, §8). */

import type { Bytes } from "../protocol/bytes.js";
import { sha256 } from "../protocol/crypto.js";
import { packInto, unpack, type Words } from "./packing.js";
import type { RingBits } from "./parameters.js";
import { MaskStream, TILE } from "./prg.js";

/** A mask key, and whether its mask is added or taken away. */
export interface SignedKey {
  readonly key: Bytes;
  readonly add: boolean;
}

/** The packed masked vector cut into chunks, with the SHA-256 of each: what leaves the device. */
export interface MaskedUpdate {
  readonly chunks: readonly Bytes[];
  readonly digests: readonly Bytes[];
}

/**
 * Add every mask to the D elements of `quantised`, in place (the plain values are gone afterwards), pack and hash.
 *
 * @param bounds first element and end of each chunk.
 */
export async function maskUpdate(
  quantised: Words,
  keys: readonly SignedKey[],
  ringBits: RingBits,
  bounds: readonly (readonly [number, number])[],
): Promise<MaskedUpdate> {
  await addMasks(quantised, keys, 0);
  const packed = new Uint8Array((quantised.length / 8) * ringBits);
  packInto(quantised, ringBits, packed);
  const chunks = bounds.map(([start, end]) => packed.subarray((start / 8) * ringBits, (end / 8) * ringBits));
  return { chunks, digests: await Promise.all(chunks.map((chunk) => sha256(chunk))) };
}

/**
 * Sum packed chunks of the survivors and add or take away the given masks; `start` is the chunk's first element.
 * Gives the packed chunk of the aggregate.
 */
export async function unmaskSum(
  masked: readonly Bytes[],
  keys: readonly SignedKey[],
  ringBits: RingBits,
  start: number,
): Promise<Bytes> {
  const [first, ...rest] = masked;
  const total = first === undefined ? new Uint32Array(0) : unpack(first, ringBits);
  for (const chunk of rest) accumulate(total, unpack(chunk, ringBits), true);
  await addMasks(total, keys, start);
  const packed = new Uint8Array((total.length / 8) * ringBits);
  packInto(total, ringBits, packed);
  return packed;
}

/** Expands one tile of every mask at once: WebCrypto works on them in threads while the last ones are added. */
async function addMasks(values: Words, keys: readonly SignedKey[], start: number): Promise<void> {
  const streams = await Promise.all(keys.map((item) => MaskStream.of(item.key)));
  for (let at = 0; at < values.length; at += TILE) {
    const part = values.subarray(at, at + TILE);
    await Promise.all(
      streams.map(async (stream, i) => {
        const words = await stream.words(start + at, part.length);
        accumulate(part, words, keys[i]?.add === true);
      }),
    );
  }
}

function accumulate(total: Words, other: Words, add: boolean): void {
  if (add) for (let i = 0; i < total.length; i++) total[i] = (total[i] as number) + (other[i] as number);
  else for (let i = 0; i < total.length; i++) total[i] = (total[i] as number) - (other[i] as number);
}
