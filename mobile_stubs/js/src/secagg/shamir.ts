/** Shamir sharing over GF(2^8), polynomial 0x11b, byte by byte (spec 07 §2). Source: Shamir, CACM 1979. */

import type { Bytes } from "../protocol/bytes.js";
import { RoundError } from "../protocol/errors.js";

export const SECRET_BYTES = 32;

const EXP = new Uint8Array(510);
const LOG = new Uint8Array(256);
fillTables();

/** Random bytes that sharing one secret consumes. */
export function coefficientBytes(threshold: number): number {
  return SECRET_BYTES * (threshold - 1);
}

/**
 * The share of a 32-byte secret for the peer of an index: the polynomial's value at x = index + 1.
 *
 * @param coefficients `coefficientBytes(threshold)` random bytes, those of degree 1 first.
 * @throws RoundError a secret or coefficients of another length.
 */
export function shareOf(secret: Bytes, threshold: number, index: number, coefficients: Bytes): Bytes {
  if (secret.length !== SECRET_BYTES || coefficients.length !== coefficientBytes(threshold)) {
    throw new RoundError(
      `sharing: expected ${SECRET_BYTES} secret and ${coefficientBytes(threshold)} random bytes, ` +
        `got ${secret.length} and ${coefficients.length}`,
    );
  }
  const out = new Uint8Array(SECRET_BYTES);
  for (let i = 0; i < SECRET_BYTES; i++) {
    let value = 0;
    for (let degree = threshold - 1; degree >= 1; degree--) {
      value = multiply(value, index + 1) ^ (coefficients[(degree - 1) * SECRET_BYTES + i] as number);
    }
    out[i] = multiply(value, index + 1) ^ (secret[i] as number);
  }
  return out;
}

/**
 * The polynomial's value at zero through exactly the given shares, by peer index.
 *
 * Whether it is the secret that was shared is for the caller to check against a commitment.
 */
export function recoverSecret(shares: ReadonlyMap<number, Bytes>): Bytes {
  const points = [...shares.keys()].map((index) => index + 1);
  const secret = new Uint8Array(SECRET_BYTES);
  for (const [index, share] of shares) {
    const point = index + 1;
    let weight = 1;
    for (const other of points) {
      if (other !== point) weight = multiply(weight, divide(other, other ^ point));
    }
    for (let i = 0; i < SECRET_BYTES; i++) secret[i] = (secret[i] as number) ^ multiply(weight, share[i] as number);
  }
  return secret;
}

function multiply(a: number, b: number): number {
  return a === 0 || b === 0 ? 0 : (EXP[(LOG[a] as number) + (LOG[b] as number)] as number);
}

function divide(a: number, b: number): number {
  return a === 0 ? 0 : (EXP[(LOG[a] as number) + 255 - (LOG[b] as number)] as number);
}

function fillTables(): void {
  let value = 1;
  for (let power = 0; power < 255; power++) {
    EXP[power] = value;
    EXP[power + 255] = value;
    LOG[value] = power;
    value ^= value << 1; // times 3, a generator
    if (value & 0x100) value ^= 0x11b;
  }
}
