/** Boxes that only one peer opens (spec 02 §3): what signaling relays says nothing to who runs it. */

import { type Bytes, concat, parseHex64, short, utf8 } from "./bytes.js";
import { agree, agreementKey, agreementPublicKey, closeBox, hkdf, openBox, randomBytes } from "./crypto.js";
import { EncodingError, SignatureError } from "./errors.js";
import type { PeerId } from "./identity.js";
import type { NegotiationKind } from "./link/negotiation.js";

const KINDS: readonly NegotiationKind[] = ["offer", "answer", "candidate"];
const LEAST_BYTES = 32 + 1 + 16;
const NOTHING = new Uint8Array(0);

/** A peer's X25519 key for boxes, fresh for each process. */
export class SealingKey {
  readonly #key: CryptoKey;

  private constructor(
    key: CryptoKey,
    /** 32 bytes that others seal to. */
    readonly publicKey: Bytes,
  ) {
    this.#key = key;
  }

  static async generate(): Promise<SealingKey> {
    const key = await agreementKey(randomBytes(32));
    return new SealingKey(key, await agreementPublicKey(key));
  }

  /**
   * The kind of negotiation document in a box, and its bytes.
   *
   * @throws EncodingError it is too short, or of a kind that does not exist.
   * @throws SignatureError it was not sealed by `sender` for this key.
   */
  async open(box: Bytes, sender: PeerId, receiver: PeerId): Promise<{ kind: NegotiationKind; payload: Bytes }> {
    if (box.length < LEAST_BYTES) {
      throw new EncodingError(`sealed box from ${short(sender)} has ${box.length} bytes, expected ${LEAST_BYTES} at least`);
    }
    const ephemeral = box.slice(0, 32);
    const key = await deriveKey(await agree(this.#key, ephemeral), ephemeral, this.publicKey, sender, receiver);
    const plain = await openBox(key, box.slice(32), NOTHING);
    if (plain === null) throw new SignatureError(`sealed box from ${short(sender)} does not open with this peer's key`);
    const kind = KINDS[(plain[0] ?? 0) - 1];
    if (kind === undefined) throw new EncodingError(`sealed box from ${short(sender)} holds kind ${plain[0]}, which is unknown`);
    return { kind, payload: plain.slice(1) };
  }
}

/** A box for the holder of `recipient` (32 bytes), from one peer to another. */
export async function seal(
  recipient: Bytes,
  document: { kind: NegotiationKind; payload: Bytes },
  sender: PeerId,
  receiver: PeerId,
): Promise<Bytes> {
  const own = await agreementKey(randomBytes(32));
  const ephemeral = await agreementPublicKey(own);
  const key = await deriveKey(await agree(own, recipient), ephemeral, recipient, sender, receiver);
  const plain = concat(Uint8Array.of(KINDS.indexOf(document.kind) + 1), document.payload);
  return concat(ephemeral, await closeBox(key, plain, NOTHING));
}

function deriveKey(shared: Bytes, ephemeral: Bytes, recipient: Bytes, sender: PeerId, receiver: PeerId): Promise<Bytes> {
  const peers = concat(parseHex64(sender, "sender"), parseHex64(receiver, "receiver"));
  return hkdf(shared, utf8("peerplan/1/seal"), concat(ephemeral, recipient, peers));
}
