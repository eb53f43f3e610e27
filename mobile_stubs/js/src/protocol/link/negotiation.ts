/**
 * Signed negotiation documents (spec 04 §2): offer, answer and candidate, which a signaling server relays unread.
 *
 * A server in the middle can drop a document or deliver it late, and nothing else.
 */

import { type Bytes, short } from "../bytes.js";
import { LinkError, ProtocolError } from "../errors.js";
import { type Identity, type PeerId, verify } from "../identity.js";
import { bytes, decodeJson, encodeAs, hex64, integer, type Of, oneOf, optional, record, text } from "../schema.js";

export const NEGOTIATION_LABEL = "peerplan/1/negotiation";
export const DOCUMENT_MAX_BYTES = 32_768;
/** How far the sender's clock may be from the receiver's, transport included: ten minutes. */
export const MAX_SKEW_MS = 600_000;
const BODY_MAX_CHARACTERS = 16_384;
const FINGERPRINT = "a=fingerprint:";

const negotiationSchema = record({
  kind: oneOf("offer", "answer", "candidate"),
  from: hex64,
  to: hex64,
  nonce: text(32, { pattern: /^[0-9a-f]{32}$/ }),
  reply_to: optional(text(32, { pattern: /^(?:[0-9a-f]{32})?$/ }), ""),
  sequence: integer(0, Number.MAX_SAFE_INTEGER),
  fingerprint: hex64,
  body: text(BODY_MAX_CHARACTERS),
});
/** One step of making a link; fields as in spec 04 §2. */
export type Negotiation = Of<typeof negotiationSchema>;
export type NegotiationKind = Negotiation["kind"];

const signedSchema = record({ document: bytes(), signature: bytes() });

/** Sign a document of one's own and give the bytes to relay. */
export async function sealNegotiation(identity: Identity, document: Negotiation): Promise<Bytes> {
  const payload = encodeAs(negotiationSchema, document);
  return encodeAs(signedSchema, { document: payload, signature: await identity.sign(NEGOTIATION_LABEL, payload) });
}

/**
 * Verify a document that was relayed as `kind` from `sender` to `receiver` (oneself).
 *
 * @throws LimitExceededError, EncodingError the bytes are no such document.
 * @throws SignatureError `sender` did not sign it.
 * @throws LinkError it is for somebody else, of another kind, or its fingerprint is not that of its description.
 */
export async function openNegotiation(
  data: Bytes,
  expected: { sender: PeerId; receiver: PeerId; kind: string },
): Promise<Negotiation> {
  const { sender, receiver, kind } = expected;
  const what = `link ${kind} from ${short(sender)} to ${short(receiver)}`;
  const signed = decodeJson(data, signedSchema, what, DOCUMENT_MAX_BYTES);
  await verify(sender, NEGOTIATION_LABEL, signed.document, signed.signature);
  const document = decodeJson(signed.document, negotiationSchema, what, DOCUMENT_MAX_BYTES);
  if (document.from !== sender || document.to !== receiver) {
    throw new LinkError(`${what}: written from ${short(document.from)} to ${short(document.to)}`);
  }
  if (document.kind !== kind) throw new LinkError(`${what}: relayed as ${kind}, signed as ${document.kind}`);
  if (document.kind !== "candidate") checkDescription(document, what);
  return document;
}

/**
 * The SHA-256 certificate fingerprint of a session description, as 64 lower-case hexadecimal digits.
 *
 * @throws LinkError it has none, names another hash, or has two that differ.
 */
export function fingerprintIn(sdp: string): string {
  const found = new Set<string>();
  for (const line of linesOf(sdp)) {
    if (!line.startsWith(FINGERPRINT)) continue;
    const [algorithm = "", value = ""] = line.slice(FINGERPRINT.length).split(" ");
    if (algorithm.toLowerCase() !== "sha-256") {
      throw new LinkError(`session description: fingerprints are sha-256 only, got ${JSON.stringify(algorithm.slice(0, 20))}`);
    }
    const digits = value.trim().replaceAll(":", "").toLowerCase();
    if (!/^[0-9a-f]{64}$/.test(digits)) throw new LinkError("session description: expected 32 bytes of fingerprint");
    found.add(digits);
  }
  if (found.size !== 1) {
    throw new LinkError(`session description: expected exactly 1 certificate fingerprint, got ${found.size}`);
  }
  return [...found][0] as string;
}

/** The session description without fingerprints of other hashes, which no side would check. */
export function onlySha256(sdp: string): string {
  const kept = linesOf(sdp).filter(
    (line) => !line.startsWith(FINGERPRINT) || line.toLowerCase().startsWith(`${FINGERPRINT}sha-256`),
  );
  return kept.map((line) => (line === "" ? "" : `${line}\r\n`)).join("");
}

function checkDescription(document: Negotiation, what: string): void {
  if ((document.kind === "offer") !== (document.reply_to === "")) {
    throw new LinkError(`${what}: an offer replies to no nonce, an answer to one`);
  }
  try {
    const media = linesOf(document.body).filter((line) => line.startsWith("m="));
    if (media.length !== 1 || media[0]?.startsWith("m=application ") !== true) {
      throw new LinkError(`session description: expected 1 section of m=application, got ${media.length} sections`);
    }
    const found = fingerprintIn(document.body);
    if (found !== document.fingerprint) {
      throw new LinkError(`signed fingerprint ${document.fingerprint.slice(0, 16)}, its description has ${found.slice(0, 16)}`);
    }
  } catch (error) {
    if (error instanceof ProtocolError) throw new LinkError(`${what}: ${error.message}`);
    throw error;
  }
}

function linesOf(sdp: string): string[] {
  return sdp.split(/\r\n|\r|\n/);
}

/** Refuses documents that are old: a bounded number of peers is remembered, the longest silent are forgotten. */
export class ReplayGuard {
  private readonly seen = new Map<PeerId, number>();

  constructor(
    private readonly maxPeers = 4096,
    private readonly maxSkewMs = MAX_SKEW_MS,
  ) {}

  /**
   * Take note of a verified document.
   *
   * @throws LinkError its sequence is not above the last one of its sender, or its time is too far from `nowMs`.
   */
  admit(document: Negotiation, nowMs: number): void {
    const what = `link ${document.kind} from ${short(document.from)} to ${short(document.to)}`;
    const skew = document.sequence - nowMs;
    if (Math.abs(skew) > this.maxSkewMs) {
      throw new LinkError(`${what}: sent ${Math.round(skew / 1000)} s from now, at most ${this.maxSkewMs / 1000} s is accepted`);
    }
    const last = this.seen.get(document.from);
    if (last !== undefined && document.sequence <= last) {
      throw new LinkError(`${what}: replayed, its sequence ${document.sequence} is not above ${last}`);
    }
    this.seen.delete(document.from);
    this.seen.set(document.from, document.sequence);
    if (this.seen.size > this.maxPeers) this.seen.delete(this.seen.keys().next().value as string);
  }
}
