/** Keys of one round (spec 07 §2): X25519 pairs, HKDF derivations and the boxes that carry shares. */

import { Writer } from "../protocol/binary.js";
import { type Bytes, concat, utf8 } from "../protocol/bytes.js";
import { agree, agreementKey, agreementPublicKey, closeBox, hkdf, openBox, sha256 } from "../protocol/crypto.js";
import { RoundError } from "../protocol/errors.js";
import { SECRET_BYTES } from "./shamir.js";

/** Random bytes that `RoundSecrets` takes: mask key, enc key, self-mask seed. */
export const SECRETS_BYTES = 3 * SECRET_BYTES;
export const SHARE_BOX_BYTES = 1 + 2 * SECRET_BYTES + 16;

/** A peer's secrets of one attempt. Neither text nor JSON of it shows any. */
export class RoundSecrets {
  #maskPrivate: Bytes;
  #seed: Bytes;
  #maskKey: CryptoKey | null;
  #encKey: CryptoKey | null;

  private constructor(
    randomness: Bytes,
    keys: readonly [CryptoKey, CryptoKey],
    readonly maskPublic: Bytes,
    readonly encPublic: Bytes,
  ) {
    this.#maskPrivate = randomness.slice(0, SECRET_BYTES);
    this.#seed = randomness.slice(2 * SECRET_BYTES);
    [this.#maskKey, this.#encKey] = keys;
  }

  /** Take `SECRETS_BYTES` of the operating system's randomness. */
  static async from(randomness: Bytes): Promise<RoundSecrets> {
    if (randomness.length !== SECRETS_BYTES) {
      throw new RoundError(`round secrets take ${SECRETS_BYTES} random bytes, got ${randomness.length}`);
    }
    const mask = await agreementKey(randomness.slice(0, 32));
    const enc = await agreementKey(randomness.slice(32, 64));
    return new RoundSecrets(randomness, [mask, enc], await agreementPublicKey(mask), await agreementPublicKey(enc));
  }

  /** The mask private key: shared among the roster, never sent whole. */
  get maskPrivate(): Bytes {
    return this.#maskPrivate;
  }

  /** b: the self-mask seed. */
  get selfMaskSeed(): Bytes {
    return this.#seed;
  }

  /**
   * Shared secrets with another peer: of the mask keys and of the enc keys.
   *
   * @throws SignatureError a key of small order.
   * @throws RoundError the secrets are forgotten.
   */
  async agreeWith(maskPublic: Bytes, encPublic: Bytes): Promise<{ mask: Bytes; enc: Bytes }> {
    if (this.#maskKey === null || this.#encKey === null) throw new RoundError("the secrets of this attempt are forgotten");
    return { mask: await agree(this.#maskKey, maskPublic), enc: await agree(this.#encKey, encPublic) };
  }

  /** Drop every private part; the public keys stay. */
  forget(): void {
    this.#maskPrivate.fill(0);
    this.#seed.fill(0);
    this.#maskPrivate = this.#seed = new Uint8Array(0);
    this.#maskKey = this.#encKey = null;
  }

  toJSON(): string {
    return "RoundSecrets()";
  }
}

/** What an advert says of a self-mask seed. */
export function seedCommitment(seed: Bytes): Promise<Bytes> {
  return sha256(utf8("p2psa/1/b"), seed);
}

/** X25519 public key of 32 private bytes. */
export async function publicKeyOf(secret: Bytes): Promise<Bytes> {
  return agreementPublicKey(await agreementKey(secret));
}

/** Key of the mask that two peers share, from the shared secret of their mask keys; both get the same. */
export function maskKey(t1: Bytes, shared: Bytes, one: number, other: number): Promise<Bytes> {
  return hkdf(shared, t1, info("p2psa/1/mask", Math.min(one, other), Math.max(one, other)));
}

/** Key of a peer's self-mask. */
export function selfKey(t1: Bytes, seed: Bytes, peer: number): Promise<Bytes> {
  return hkdf(seed, t1, info("p2psa/1/self", peer));
}

/** Key of the share box from one peer to another, from the shared secret of their enc keys. */
export function shareKey(t1: Bytes, shared: Bytes, sender: number, receiver: number): Promise<Bytes> {
  return hkdf(shared, t1, info("p2psa/1/share", sender, receiver));
}

/** The two shares meant for one peer. */
export interface SharePair {
  readonly seed: Bytes;
  readonly key: Bytes;
}

/** Encrypt the two shares meant for `receiver`. */
export function closeShareBox(key: Bytes, t1: Bytes, sender: number, receiver: number, pair: SharePair): Promise<Bytes> {
  const plain = concat(Uint8Array.of(receiver + 1), pair.seed, pair.key);
  return closeBox(key, plain, concat(t1, indexes(sender, receiver)));
}

/**
 * Decrypt `closeShareBox`.
 *
 * @throws RoundError the box does not decrypt, or carries the share of another point.
 */
export async function openShareBox(
  key: Bytes,
  t1: Bytes,
  sender: number,
  receiver: number,
  box: Bytes,
): Promise<SharePair> {
  const plain = await openBox(key, box, concat(t1, indexes(sender, receiver)));
  if (plain === null) throw new RoundError(`share box from peer ${sender} to peer ${receiver} does not decrypt`);
  if (plain.length !== 1 + 2 * SECRET_BYTES || plain[0] !== receiver + 1) {
    throw new RoundError(`share box from peer ${sender} holds another share than that of peer ${receiver}`);
  }
  return { seed: plain.slice(1, 33), key: plain.slice(33) };
}

function info(label: string, ...peers: readonly number[]): Bytes {
  return concat(utf8(label), indexes(...peers));
}

function indexes(...peers: readonly number[]): Bytes {
  const writer = new Writer();
  for (const peer of peers) writer.uint(peer, 2);
  return writer.bytes();
}
