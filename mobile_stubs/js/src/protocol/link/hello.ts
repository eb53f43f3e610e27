/** HELLO (spec 04 §4): both sides prove, inside the open channel, who they are and which certificates they see. */

import { Reader } from "../binary.js";
import { type Bytes, concat, fromHex, short, toHex } from "../bytes.js";
import { LinkError } from "../errors.js";
import { type Identity, type PeerId, SIGNATURE_BYTES, verify } from "../identity.js";

export const HELLO_LABEL = "peerplan/1/hello";
export const HELLO_BYTES = 4 * 32 + 2 * 16 + SIGNATURE_BYTES;

/** One side's view of a link: who is at each end, with which certificate and nonce (hexadecimal). */
export interface LinkView {
  readonly local: PeerId;
  readonly remote: PeerId;
  readonly localFingerprint: string;
  readonly remoteFingerprint: string;
  readonly localNonce: string;
  readonly remoteNonce: string;
}

/** The HELLO this side sends. */
export async function sealHello(identity: Identity, view: LinkView): Promise<Bytes> {
  const statement = concat(...fieldsOf(view).map(([, text]) => fromHex(text)));
  return concat(statement, await identity.sign(HELLO_LABEL, statement));
}

/**
 * Check the other side's HELLO against this side's view of the link.
 *
 * @throws LinkError a field differs (the first one is named), or the size is wrong.
 * @throws SignatureError the other side did not sign it.
 */
export async function verifyHello(payload: Bytes, view: LinkView): Promise<void> {
  const what = `HELLO from ${short(view.remote)} to ${short(view.local)}`;
  if (payload.length !== HELLO_BYTES) throw new LinkError(`${what}: expected ${HELLO_BYTES} bytes, got ${payload.length}`);
  const reader = new Reader(payload, what);
  for (const [name, expected] of fieldsOf(reversed(view))) {
    const got = toHex(reader.view(expected.length / 2));
    if (got !== expected) throw new LinkError(`${what}: ${name} is ${got.slice(0, 16)}, this side sees ${expected.slice(0, 16)}`);
  }
  const statement = reader.consumed();
  await verify(view.remote, HELLO_LABEL, statement, reader.raw(SIGNATURE_BYTES));
}

/** The view the other side must have. */
function reversed(view: LinkView): LinkView {
  return {
    local: view.remote,
    remote: view.local,
    localFingerprint: view.remoteFingerprint,
    remoteFingerprint: view.localFingerprint,
    localNonce: view.remoteNonce,
    remoteNonce: view.localNonce,
  };
}

/** Name and hexadecimal of each field of the sender's statement, in wire order. */
function fieldsOf(view: LinkView): readonly (readonly [string, string])[] {
  return [
    ["sender", view.local],
    ["receiver", view.remote],
    ["sender's fingerprint", view.localFingerprint],
    ["receiver's fingerprint", view.remoteFingerprint],
    ["sender's nonce", view.localNonce],
    ["receiver's nonce", view.remoteNonce],
  ];
}
