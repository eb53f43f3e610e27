/** Ring elements as bytes (spec 07 §6): k = 16, 24 and 32 as little-endian integers, 20 bits two in five bytes. */

import type { Bytes } from "../protocol/bytes.js";
import { EncodingError } from "../protocol/errors.js";
import type { RingBits } from "./parameters.js";

/** Ring elements; only the low k bits of each count. */
export type Words = Uint32Array<ArrayBuffer>;

/**
 * Pack the low `ringBits` of `values`, a multiple of eight, into `out`.
 *
 * @throws EncodingError `out` does not have the size they take.
 */
export function packInto(values: Words, ringBits: RingBits, out: Bytes): void {
  if (values.length % 8 !== 0 || out.length * 8 !== values.length * ringBits) {
    throw new EncodingError(`${values.length} values of ${ringBits} bits do not fill ${out.length} bytes`);
  }
  if (ringBits === 20) packTwenty(values, out);
  else packWhole(values, ringBits / 8, out);
}

/** The packed form of `values`. */
export function pack(values: Words, ringBits: RingBits): Bytes {
  const out = new Uint8Array((values.length * ringBits) / 8);
  packInto(values, ringBits, out);
  return out;
}

/**
 * Values of `pack`.
 *
 * @throws EncodingError the length is not that of a multiple of eight values.
 */
export function unpack(data: Bytes, ringBits: RingBits): Words {
  if (data.length % ringBits !== 0) {
    throw new EncodingError(`${data.length} bytes are no multiple of eight ${ringBits}-bit values`);
  }
  const out = new Uint32Array((data.length / ringBits) * 8);
  if (ringBits === 20) unpackTwenty(data, out);
  else unpackWhole(data, ringBits / 8, out);
  return out;
}

function packWhole(values: Words, size: number, out: Bytes): void {
  for (let i = 0, at = 0; i < values.length; i++) {
    let value = values[i] as number;
    for (let n = 0; n < size; n++, value >>>= 8) out[at++] = value;
  }
}

function unpackWhole(data: Bytes, size: number, out: Words): void {
  for (let i = 0, at = 0; i < out.length; i++) {
    let value = 0;
    for (let n = 0; n < size; n++) value |= (data[at++] as number) << (8 * n);
    out[i] = value;
  }
}

function packTwenty(values: Words, out: Bytes): void {
  for (let i = 0, at = 0; i < values.length; i += 2) {
    const a = values[i] as number;
    const b = values[i + 1] as number;
    out[at++] = a;
    out[at++] = a >>> 8;
    out[at++] = ((a >>> 16) & 0x0f) | (b << 4);
    out[at++] = b >>> 4;
    out[at++] = b >>> 12;
  }
}

function unpackTwenty(data: Bytes, out: Words): void {
  for (let i = 0, at = 0; i < out.length; i += 2, at += 5) {
    const middle = data[at + 2] as number;
    out[i] = (data[at] as number) | ((data[at + 1] as number) << 8) | ((middle & 0x0f) << 16);
    out[i + 1] = (middle >>> 4) | ((data[at + 3] as number) << 4) | ((data[at + 4] as number) << 12);
  }
}
