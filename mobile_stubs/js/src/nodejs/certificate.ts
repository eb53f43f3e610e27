/** A self-signed X.509 v3 certificate (EC P-256, thirty days) for DTLS, in memory alone (RFC 5280). */

import { type Bytes, concat, toBase64, toHex, utf8 } from "../protocol/bytes.js";
import { randomBytes, sha256 } from "../protocol/crypto.js";

const DAY_MS = 86_400_000;
const TAG = { INTEGER: 0x02, BIT_STRING: 0x03, OID: 0x06, UTF8: 0x0c, TIME: 0x17, SEQUENCE: 0x30, SET: 0x31, VERSION: 0xa0 };
const ECDSA_SHA256 = Uint8Array.of(0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02); // 1.2.840.10045.4.3.2
const COMMON_NAME = Uint8Array.of(0x55, 0x04, 0x03); // 2.5.4.3

/** Certificate and private key as PEM text, and the SHA-256 of the certificate's DER in hexadecimal. */
export interface Certificate {
  readonly certificatePem: string;
  readonly keyPem: string;
  readonly fingerprint: string;
}

/** A fresh certificate. */
export async function generateCertificate(now = Date.now()): Promise<Certificate> {
  const usage = { name: "ECDSA", namedCurve: "P-256" };
  const pair = await crypto.subtle.generateKey(usage, true, ["sign", "verify"]);
  const subjectKey = new Uint8Array(await crypto.subtle.exportKey("spki", pair.publicKey));
  const algorithm = der(TAG.SEQUENCE, der(TAG.OID, ECDSA_SHA256));
  const name = der(TAG.SEQUENCE, der(TAG.SET, der(TAG.SEQUENCE, der(TAG.OID, COMMON_NAME), der(TAG.UTF8, utf8("peerplan")))));
  const serial = randomBytes(16);
  serial[0] = ((serial[0] as number) & 0x3f) | 0x40; // positive, without leading zeros
  const body = der(
    TAG.SEQUENCE,
    der(TAG.VERSION, der(TAG.INTEGER, Uint8Array.of(2))),
    der(TAG.INTEGER, serial),
    algorithm,
    name,
    der(TAG.SEQUENCE, time(now - DAY_MS), time(now + 30 * DAY_MS)),
    name,
    subjectKey,
  );
  const raw = new Uint8Array(await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, pair.privateKey, body));
  const signature = der(TAG.SEQUENCE, integer(raw.slice(0, 32)), integer(raw.slice(32)));
  const certificate = der(TAG.SEQUENCE, body, algorithm, der(TAG.BIT_STRING, Uint8Array.of(0), signature));
  const key = new Uint8Array(await crypto.subtle.exportKey("pkcs8", pair.privateKey));
  return {
    certificatePem: pem("CERTIFICATE", certificate),
    keyPem: pem("PRIVATE KEY", key),
    fingerprint: toHex(await sha256(certificate)),
  };
}

function der(tag: number, ...parts: readonly Bytes[]): Bytes {
  const content = concat(...parts);
  const size = content.length;
  const length = size < 0x80 ? [size] : size < 0x100 ? [0x81, size] : [0x82, size >> 8, size & 0xff];
  return concat(Uint8Array.of(tag, ...length), content);
}

/** An unsigned big-endian number as a DER INTEGER: no superfluous zeros, never negative. */
function integer(bytes: Bytes): Bytes {
  const start = bytes.findIndex((value) => value !== 0);
  const digits = start < 0 ? Uint8Array.of(0) : bytes.slice(start);
  return der(TAG.INTEGER, (digits[0] as number) >= 0x80 ? concat(Uint8Array.of(0), digits) : digits);
}

/** UTCTime, good until 2049. */
function time(ms: number): Bytes {
  const digits = new Date(ms).toISOString().replace(/[-:T]/g, "").slice(2, 14);
  return der(TAG.TIME, utf8(`${digits}Z`));
}

function pem(label: string, content: Bytes): string {
  const lines = toBase64(content).match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
