/**
 * Receipts: the signed record of what a node was asked, what its owner's policy decided, and which rounds followed.
 *
 * A receipt is a DSSE envelope by the node's identity, in the form the Python node writes. It leaves the node only where
 * its owner hands it out.
 */

import type { Bytes } from "../protocol/bytes.js";
import { short } from "../protocol/bytes.js";
import { openEnvelope, sealEnvelope } from "../protocol/envelope.js";
import { LimitExceededError, ProtocolError } from "../protocol/errors.js";
import type { Identity, PeerId } from "../protocol/identity.js";
import {
  decodeJson,
  encodeAs,
  hex64,
  integer,
  name,
  nullable,
  type Of,
  oneOf,
  optional,
  record,
  text,
} from "../protocol/schema.js";
import { MAX_COHORT, MAX_COHORTS } from "../protocol/terms.js";
import { ReceiptError } from "./errors.js";

export const RECEIPT_TYPE = "application/vnd.peerplan.receipt+json";
const MAX_RECEIPT_BYTES = 64 << 10;

const count = integer(0, 2 ** 31);
const completed = record({
  round: count,
  attempt: count,
  survivors: integer(0, MAX_COHORT),
  model_digest: hex64,
  group: optional(nullable(integer(0, MAX_COHORTS - 1)), null),
});
/** A round that ended in a model while this node took part; of many cohorts its own group, and the digest of its sum. */
export type CompletedRound = Of<typeof completed>;

const receiptSchema = record({
  format: optional(oneOf("peerplan-receipt/1"), "peerplan-receipt/1"),
  run: hex64,
  plan: hex64,
  author: hex64,
  name,
  decision: oneOf("accepted", "declined"),
  rule: text(64),
  reason: text(16_384),
  dataset: optional(nullable(name), null),
  time: text(20, { pattern: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/ }),
  completed: optional(nullable(completed), null),
});
/** One decision, or one completed round under it. `time` is UTC to the second. */
export type Receipt = Of<typeof receiptSchema>;

/** A point in time as receipts write it; `ms` since 1970. */
export function receiptTime(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}

/**
 * Sign a receipt; gives the envelope's JSON bytes.
 *
 * @throws ReceiptError a field is out of range, or a declined run has a completed round.
 */
export async function sealReceipt(identity: Identity, receipt: Receipt): Promise<Bytes> {
  const payload = encodeAs(receiptSchema, receipt);
  parse(payload);
  return sealEnvelope(identity, RECEIPT_TYPE, payload);
}

/**
 * Verify a receipt of the node `signer`.
 *
 * @throws ReceiptError no receipt, a signature that does not verify, or another signer.
 */
export async function openReceipt(data: Bytes, signer: PeerId): Promise<Receipt> {
  try {
    if (data.length > MAX_RECEIPT_BYTES) {
      throw new LimitExceededError(`receipt: ${data.length} bytes, at most ${MAX_RECEIPT_BYTES} are accepted`);
    }
    const opened = await openEnvelope(data, RECEIPT_TYPE, "receipt");
    if (opened.signer !== signer) {
      throw new ReceiptError(`receipt: signed by ${short(opened.signer)}, expected ${short(signer)}`);
    }
    return parse(opened.payload);
  } catch (error) {
    if (error instanceof ProtocolError) throw new ReceiptError(error.message);
    throw error;
  }
}

function parse(payload: Bytes): Receipt {
  let receipt: Receipt;
  try {
    receipt = decodeJson(payload, receiptSchema, "receipt", MAX_RECEIPT_BYTES);
  } catch (error) {
    if (error instanceof ProtocolError) throw new ReceiptError(error.message);
    throw error;
  }
  if (receipt.decision === "declined" && receipt.completed !== null) {
    throw new ReceiptError(`receipt: run ${receipt.name} was declined, yet round ${receipt.completed.round} completed`);
  }
  return receipt;
}
