/**
 * DSSE envelopes (spec 02 §2): a signature over the exact bytes of a document, so nothing is canonicalised.
 * Source: https://github.com/secure-systems-lab/dsse, protocol version 1.0.2.
 */

import { type Bytes, concat, quote, short, toHex, utf8 } from "./bytes.js";
import { sha256 } from "./crypto.js";
import { SignatureError } from "./errors.js";
import { type Identity, type PeerId, verify } from "./identity.js";
import { bytes, decodeJson, encodeAs, hex64, list, type Of, record, text } from "./schema.js";

export const PLAN_TYPE = "application/vnd.peerplan.plan+json";
export const RUN_TYPE = "application/vnd.peerplan.run+json";
export const MAX_ENVELOPE_BYTES = 4 << 20;

/** An envelope as JSON holds it. */
export const envelopeSchema = record({
  payloadType: text(1 << 20),
  payload: bytes(),
  signatures: list(record({ keyid: hex64, sig: bytes() })),
});
/** A decoded envelope; nothing of it is verified yet. */
export type Envelope = Of<typeof envelopeSchema>;

/** A verified payload: its exact bytes, their SHA-256 in hexadecimal, and who signed them. */
export interface Opened {
  readonly payload: Bytes;
  readonly digest: string;
  readonly signer: PeerId;
}

/** What is signed: the pre-authentication encoding. */
export function preAuthenticationEncoding(payloadType: string, payload: Bytes): Bytes {
  const kind = utf8(payloadType);
  return concat(utf8(`DSSEv1 ${kind.length} `), kind, utf8(` ${payload.length} `), payload);
}

/** Sign `payload` and give the envelope's JSON bytes. */
export async function sealEnvelope(identity: Identity, payloadType: string, payload: Bytes): Promise<Bytes> {
  const sig = await identity.sign("", preAuthenticationEncoding(payloadType, payload));
  return encodeAs(envelopeSchema, { payloadType, payload, signatures: [{ keyid: identity.peerId, sig }] });
}

/**
 * Verify the JSON bytes of an envelope; who the signer may be is the caller's decision.
 *
 * @throws LimitExceededError, EncodingError the bytes are no envelope.
 * @throws SignatureError wrong payload type, not exactly one signature, or one that does not verify.
 */
export async function openEnvelope(data: Bytes, payloadType: string, what: string): Promise<Opened> {
  return checkEnvelope(decodeJson(data, envelopeSchema, what, MAX_ENVELOPE_BYTES), payloadType, what);
}

/** Verify a decoded envelope (spec 02 §2, steps 2 to 4). */
export async function checkEnvelope(envelope: Envelope, payloadType: string, what: string): Promise<Opened> {
  if (envelope.payloadType !== payloadType) {
    throw new SignatureError(`${what}: payload type is ${quote(envelope.payloadType)}, expected ${payloadType}`);
  }
  const [signature, ...more] = envelope.signatures;
  if (signature === undefined || more.length > 0) {
    throw new SignatureError(`${what}: expected exactly 1 signature, got ${envelope.signatures.length}`);
  }
  try {
    await verify(signature.keyid, "", preAuthenticationEncoding(payloadType, envelope.payload), signature.sig);
  } catch {
    throw new SignatureError(`${what}: the signature is not by ${short(signature.keyid)}`);
  }
  return {
    payload: envelope.payload,
    digest: toHex(await sha256(envelope.payload)),
    signer: signature.keyid,
  };
}
