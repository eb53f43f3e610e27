/**
 * The one suite of the protocol by WebCrypto (spec 02, 07 §2): Ed25519, X25519, HKDF-SHA256, AES-256-GCM, AES-256-CTR.
 *
 * Node 20 and current browsers have all of it natively. Private keys are imported as not extractable wherever their
 * public half is known.
 */

import { type Bytes, concat, fromBase64, fromHex, toHex } from "./bytes.js";
import { ProtocolError, SignatureError } from "./errors.js";

/** Raw private keys travel in the fixed PKCS #8 wrapping of RFC 8410. */
const PKCS8_PREFIX = {
  Ed25519: fromHex("302e020100300506032b657004220420"),
  X25519: fromHex("302e020100300506032b656e04220420"),
} as const;

const BASE_POINT = Uint8Array.from({ length: 32 }, (_, i) => (i === 0 ? 9 : 0));
const ZERO_NONCE = new Uint8Array(12);
const MAX_CACHED_KEYS = 1024;
const verifyKeys = new Map<string, CryptoKey>();

/** WebCrypto, where the platform has it. */
function subtle(): SubtleCrypto {
  const found = globalThis.crypto?.subtle;
  if (found === undefined) {
    throw new ProtocolError("this page has no WebCrypto: it is available over https:// and on localhost alone");
  }
  return found;
}

/** Bytes of the operating system's randomness. */
export function randomBytes(size: number): Bytes {
  const out = new Uint8Array(size);
  for (let at = 0; at < size; at += 65_536) crypto.getRandomValues(out.subarray(at, at + 65_536));
  return out;
}

/** SHA-256 of the parts, one after the other. */
export async function sha256(...parts: readonly Bytes[]): Promise<Bytes> {
  const data = parts.length === 1 ? (parts[0] as Bytes) : concat(...parts);
  return new Uint8Array(await subtle().digest("SHA-256", data));
}

/** HKDF-SHA256 (RFC 5869), 32 bytes out. */
export async function hkdf(secret: Bytes, salt: Bytes, info: Bytes): Promise<Bytes> {
  const key = await subtle().importKey("raw", secret, "HKDF", false, ["deriveBits"]);
  return new Uint8Array(await subtle().deriveBits({ name: "HKDF", hash: "SHA-256", salt, info }, key, 256));
}

/** An Ed25519 private key of its 32 secret bytes, and its public key. */
export async function signingKey(seed: Bytes): Promise<{ key: CryptoKey; publicKey: Bytes }> {
  const pkcs8 = concat(PKCS8_PREFIX.Ed25519, seed);
  const open = await subtle().importKey("pkcs8", pkcs8, "Ed25519", true, ["sign"]);
  const { x } = await subtle().exportKey("jwk", open);
  const key = await subtle().importKey("pkcs8", pkcs8, "Ed25519", false, ["sign"]);
  return { key, publicKey: fromBase64Url(x ?? "") };
}

/** A fresh Ed25519 key pair whose private half never leaves the platform's key store. */
export async function generateSigningKey(): Promise<{ key: CryptoKey; publicKey: Bytes }> {
  const pair = (await subtle().generateKey("Ed25519", false, ["sign", "verify"]));
  return { key: pair.privateKey, publicKey: new Uint8Array(await subtle().exportKey("raw", pair.publicKey)) };
}

/** Ed25519 signature, 64 bytes. */
export async function sign(key: CryptoKey, message: Bytes): Promise<Bytes> {
  return new Uint8Array(await subtle().sign("Ed25519", key, message));
}

/**
 * Points of small order and second encodings, as hexadecimal without the sign bit: 0, 1, the two y of order eight, p - 1 and all
 * from p on. Platforms disagree about them, so that they are refused before one is asked.
 */
const WEAK_POINT =
  /^(0[01](00){31}|26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05|c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a|(e[c-f]|f.)(ff){30}7f)$/;

function isWeak(point: Bytes): boolean {
  const y = point.slice();
  y[31] = (y[31] as number) & 0x7f;
  return WEAK_POINT.test(toHex(y));
}

/** Whether an Ed25519 signature by the 32-byte `publicKey` verifies (spec 02 §1). */
export async function verifySignature(publicKey: Bytes, message: Bytes, signature: Bytes): Promise<boolean> {
  if (signature.length !== 64 || isWeak(publicKey) || isWeak(signature.subarray(0, 32))) return false;
  try {
    return await subtle().verify("Ed25519", await verifyKey(publicKey), signature, message);
  } catch {
    return false; // the key is no point of the curve
  }
}

async function verifyKey(publicKey: Bytes): Promise<CryptoKey> {
  const name = publicKey.join();
  const known = verifyKeys.get(name);
  if (known !== undefined) return known;
  const key = await subtle().importKey("raw", publicKey, "Ed25519", false, ["verify"]);
  if (verifyKeys.size >= MAX_CACHED_KEYS) verifyKeys.delete(verifyKeys.keys().next().value as string);
  verifyKeys.set(name, key);
  return key;
}

/** An X25519 private key of 32 raw bytes. */
export async function agreementKey(secret: Bytes): Promise<CryptoKey> {
  return subtle().importKey("pkcs8", concat(PKCS8_PREFIX.X25519, secret), "X25519", false, ["deriveBits"]);
}

/** The public key of an X25519 private key: its product with the base point (RFC 7748 §6.1). */
export async function agreementPublicKey(key: CryptoKey): Promise<Bytes> {
  return agree(key, BASE_POINT);
}

/**
 * X25519 shared secret (RFC 7748).
 *
 * @throws SignatureError it is all zero: the public key is of small order.
 */
export async function agree(key: CryptoKey, publicKey: Bytes): Promise<Bytes> {
  let shared: Bytes;
  try {
    const other = await subtle().importKey("raw", publicKey, "X25519", false, []);
    shared = new Uint8Array(await subtle().deriveBits({ name: "X25519", public: other }, key, 256));
  } catch {
    throw new SignatureError("an X25519 key is of small order, or no key at all");
  }
  if (shared.every((value) => value === 0)) throw new SignatureError("an X25519 key is of small order");
  return shared;
}

/** AES-256-GCM under a nonce of twelve zero bytes: each key boxes one message. */
export async function closeBox(key: Bytes, plain: Bytes, associated: Bytes): Promise<Bytes> {
  const aes = await subtle().importKey("raw", key, "AES-GCM", false, ["encrypt"]);
  const box = await subtle().encrypt({ name: "AES-GCM", iv: ZERO_NONCE, additionalData: associated }, aes, plain);
  return new Uint8Array(box);
}

/** What `closeBox` closed; `null` where it does not decrypt. */
export async function openBox(key: Bytes, box: Bytes, associated: Bytes): Promise<Bytes | null> {
  const aes = await subtle().importKey("raw", key, "AES-GCM", false, ["decrypt"]);
  try {
    const options = { name: "AES-GCM", iv: ZERO_NONCE, additionalData: associated };
    return new Uint8Array(await subtle().decrypt(options, aes, box));
  } catch {
    return null;
  }
}

/** A key for AES-256-CTR. */
export async function counterKey(key: Bytes): Promise<CryptoKey> {
  return subtle().importKey("raw", key, "AES-CTR", false, ["encrypt"]);
}

/** AES-256-CTR of `data` with 00^12 | u32be(block) as its first counter block. */
export async function counterEncrypt(key: CryptoKey, block: number, data: Bytes): Promise<ArrayBuffer> {
  const counter = new Uint8Array(16);
  new DataView(counter.buffer).setUint32(12, block);
  return subtle().encrypt({ name: "AES-CTR", counter, length: 32 }, key, data);
}

function fromBase64Url(text: string): Bytes {
  const standard = text.replaceAll("-", "+").replaceAll("_", "/");
  return fromBase64(standard.padEnd(Math.ceil(standard.length / 4) * 4, "="), "public key");
}
