/** Ed25519 identities of peers and authors (spec 02 §1). A peer id is the public key in hexadecimal. */

import { type Bytes, concat, parseHex64, short, toHex, utf8 } from "./bytes.js";
import * as suite from "./crypto.js";
import { SignatureError } from "./errors.js";

/** An Ed25519 public key as 64 lower-case hexadecimal digits. */
export type PeerId = string;

export const SIGNATURE_BYTES = 64;

/** A long-term key pair. Neither text nor JSON of it shows more than the first digits of the public half. */
export class Identity {
  /** The public key in hexadecimal. */
  readonly peerId: PeerId;
  readonly #key: CryptoKey;

  private constructor(
    key: CryptoKey,
    /** 32 bytes. */
    readonly publicKey: Bytes,
  ) {
    this.#key = key;
    this.peerId = toHex(publicKey);
  }

  /**
   * The identity of 32 secret bytes (RFC 8032).
   *
   * @throws SignatureError another number of bytes.
   */
  static async fromSeed(seed: Bytes): Promise<Identity> {
    if (seed.length !== 32) throw new SignatureError(`an Ed25519 seed has 32 bytes, got ${seed.length}`);
    const { key, publicKey } = await suite.signingKey(seed);
    return new Identity(key, publicKey);
  }

  /** A fresh identity whose private key cannot be read out, only stored by the platform (IndexedDB). */
  static async generate(): Promise<Identity> {
    const { key, publicKey } = await suite.generateSigningKey();
    return new Identity(key, publicKey);
  }

  /** The identity of a stored key pair. */
  static restore(stored: { readonly key: CryptoKey; readonly publicKey: Bytes }): Identity {
    return new Identity(stored.key, stored.publicKey);
  }

  /** What a key store keeps: a handle on the private key, and the public key. */
  store(): { readonly key: CryptoKey; readonly publicKey: Bytes } {
    return { key: this.#key, publicKey: this.publicKey };
  }

  /** 64-byte signature over `label | payload`; the label keeps uses apart. */
  async sign(label: string, ...payload: readonly Bytes[]): Promise<Bytes> {
    return suite.sign(this.#key, concat(utf8(label), ...payload));
  }

  toString(): string {
    return `Identity(${short(this.peerId)})`;
  }

  toJSON(): string {
    return this.toString();
  }
}

/**
 * Check an Ed25519 signature over `label | payload` by `peer`.
 *
 * @throws EncodingError `peer` is no peer id.
 * @throws SignatureError the signature is not that peer's.
 */
export async function verify(peer: PeerId, label: string, payload: Bytes, signature: Bytes): Promise<void> {
  const key = parseHex64(peer, "peer id");
  if (!(await suite.verifySignature(key, concat(utf8(label), payload), signature))) {
    throw new SignatureError(`${label || "DSSE"}: signature is not by ${short(peer)}`);
  }
}
