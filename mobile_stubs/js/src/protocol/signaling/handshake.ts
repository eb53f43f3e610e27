/**
 * Who is at the other end (spec 03 §3): a challenge, its signed answer, and the signaling server's own proof.
 *
 * The transcript both sign names both identities, both nonces and the host that was dialled, so a go-between gains
 * nothing.
 */

import { Writer } from "../binary.js";
import { type Bytes, concat, parseHex64, utf8 } from "../bytes.js";
import { randomBytes, sha256 } from "../crypto.js";
import { type Identity, verify } from "../identity.js";
import { type PeerMessages, type ServerMessages, SIGNALING_VERSION } from "./messages.js";

const AUTH_LABEL = "peerplan/1/auth";
const WELCOME_LABEL = "peerplan/1/welcome";
const SEALING_LABEL = "peerplan/1/sealing";

/** Answer a challenge; `audience` is the `host:port` that was dialled. */
export async function signAuthenticate(
  identity: Identity,
  challenge: ServerMessages["challenge"],
  audience: string,
): Promise<PeerMessages["authenticate"]> {
  const answer = { version: SIGNALING_VERSION, peer: identity.peerId, nonce: randomBytes(32), audience };
  const signature = await identity.sign(AUTH_LABEL, await transcript(challenge, answer));
  return { type: "authenticate", ...answer, signature };
}

/**
 * Check that the signaling server holds the key its challenge named.
 *
 * @throws SignatureError it does not.
 */
export async function checkWelcome(
  challenge: ServerMessages["challenge"],
  answer: PeerMessages["authenticate"],
  welcome: ServerMessages["welcome"],
): Promise<void> {
  await verify(challenge.server, WELCOME_LABEL, await transcript(challenge, answer), welcome.signature);
}

/** Bind an X25519 public key to an identity, so that no signaling server can swap it. */
export function signSealingKey(identity: Identity, sealingKey: Bytes): Promise<Bytes> {
  return identity.sign(SEALING_LABEL, sealingKey);
}

/**
 * Check that a sealing key belongs to a peer.
 *
 * @throws SignatureError the signature is not that peer's.
 */
export async function checkSealingKey(peer: string, sealingKey: Bytes, signature: Bytes): Promise<void> {
  await verify(peer, SEALING_LABEL, sealingKey, signature);
}

type Answered = Pick<PeerMessages["authenticate"], "version" | "peer" | "nonce" | "audience">;

async function transcript(challenge: ServerMessages["challenge"], answer: Answered): Promise<Bytes> {
  return concat(
    new Writer().uint(answer.version, 4).bytes(),
    parseHex64(challenge.server, "signaling server id"),
    challenge.nonce,
    parseHex64(answer.peer, "peer id"),
    answer.nonce,
    await sha256(utf8(answer.audience)),
  );
}
