/** Bytes, hexadecimal and base64 (spec 01 §1.5, §1.6). */

import { EncodingError } from "./errors.js";

/** Bytes over a plain buffer, which is what WebCrypto takes. */
export type Bytes = Uint8Array<ArrayBuffer>;

const HEX = /^(?:[0-9a-f]{2})*$/;
const HEX64 = /^[0-9a-f]{64}$/;
/** Digits before padding end in zero bits, so that bytes have one form. */
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$/;
const DIGITS = Array.from({ length: 256 }, (_, value) => value.toString(16).padStart(2, "0"));
const encoder = new TextEncoder();

/** ASCII or UTF-8 text as bytes. */
export function utf8(text: string): Bytes {
  return encoder.encode(text);
}

/** The parts, one after the other. */
export function concat(...parts: readonly Uint8Array[]): Bytes {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Whether two byte strings are equal. Not for secrets: it returns at the first difference. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

/** Lower-case hexadecimal. */
export function toHex(bytes: Uint8Array): string {
  let out = "";
  for (const value of bytes) out += DIGITS[value];
  return out;
}

/**
 * The bytes behind lower-case hexadecimal digits.
 *
 * @throws EncodingError other characters, or an odd number of digits.
 */
export function fromHex(text: string, what = "hexadecimal"): Bytes {
  if (!HEX.test(text)) throw new EncodingError(`${what}: expected pairs of lower-case hexadecimal digits`);
  const out = new Uint8Array(text.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return out;
}

/** Whether a text is 32 bytes as 64 lower-case hexadecimal digits, nothing before or after. */
export function isHex64(text: string): boolean {
  return HEX64.test(text);
}

/**
 * The 32 bytes behind 64 lower-case hexadecimal digits; `what` names the field in the error.
 *
 * @throws EncodingError another length or other characters.
 */
export function parseHex64(text: string, what: string): Bytes {
  if (!isHex64(text)) {
    throw new EncodingError(`${what}: expected 64 lower-case hexadecimal digits, got ${quote(text)}`);
  }
  return fromHex(text);
}

/** Standard base64 with padding. */
export function toBase64(bytes: Uint8Array): string {
  let binary = "";
  for (let at = 0; at < bytes.length; at += 0x8000) {
    binary += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return btoa(binary);
}

/**
 * Bytes of standard base64 with padding, without white space.
 *
 * @throws EncodingError anything else, among it bits that the last digit has too many.
 */
export function fromBase64(text: string, what: string): Bytes {
  if (text.length % 4 !== 0 || !BASE64.test(text)) throw new EncodingError(`${what}: expected base64 with padding`);
  const binary = atob(text);
  const out = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) out[i] = binary.charCodeAt(i);
  return out;
}

/** At most 80 characters of an input, for an error (spec 01 §3). */
export function quote(text: string): string {
  return JSON.stringify(text.slice(0, 80));
}

/** The first eight digits of a peer id or digest, for people. */
export function short(id: string): string {
  return id.slice(0, 8);
}
