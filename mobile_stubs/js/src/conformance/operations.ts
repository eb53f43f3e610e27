/** One operation per vector file: JSON in, JSON out (spec/peer-under-test.md). */

import { parted } from "../datasets/hold-out.js";
import { UnusableDataError } from "../node/errors.js";
import { bitsOf, indexesOf } from "../protocol/bits.js";
import { fromHex, toHex } from "../protocol/bytes.js";
import { agree, agreementKey, sha256 } from "../protocol/crypto.js";
import { openEnvelope } from "../protocol/envelope.js";
import { verify } from "../protocol/identity.js";
import { serverOptimizerSchema } from "../protocol/server-optimizer.js";
import { encodeBody, parseMessage } from "../round/layout.js";
import { signedPart, SUM_LABEL, sumPayload } from "../round/codec.js";
import { checkCertificate } from "../round/certificate.js";
import { checkAdvertKeys } from "../round/adverts.js";
import type { Received } from "../round/messages.js";
import { isOf, SIGNED } from "../round/messages.js";
import { applyAggregate, modelBytes, modelDigest, tailBytes } from "../secagg/apply.js";
import { maskKey, openShareBox, publicKeyOf, seedCommitment, selfKey, shareKey } from "../secagg/keys.js";
import { pack, unpack } from "../secagg/packing.js";
import {
  commitRoot,
  isRingBits,
  leaderOf,
  maskedDigest,
  RoundParameters,
  type RoundSetting,
  rosterDigest,
  roundIdOf,
  survivorsDigest,
} from "../secagg/parameters.js";
import { MaskStream } from "../secagg/prg.js";
import { quantise, signedSum } from "../secagg/quantise.js";
import { recoverSecret, shareOf } from "../secagg/shamir.js";
import { boundsOf, floatsOf, type Json, refuse, toJson } from "./json.js";
import { answerQuestion } from "./cohorts.js";
import { playRound } from "./rounds.js";

/** Every operation, by name. What it throws as a ProtocolError is a refusal. */
export const OPERATIONS: Readonly<Record<string, (given: Json) => Promise<Json>>> = {
  envelopes: async (g) => {
    const opened = await openEnvelope(fromHex(g.bytes), g.payload_type, "envelope");
    return { payload: toHex(opened.payload), digest: opened.digest, signer: opened.signer };
  },
  keys: deriveKey,
  prg: expand,
  packing: async (g) => packOrUnpack(g),
  shamir: async (g) => shareOrRecover(g),
  boxes: openBoxOf,
  quantise: quantiseUpdate,
  transcript: bindRound,
  messages: async (g) => decodeMessage(g),
  signatures: verifyMessage,
  adverts: acceptAdvert,
  certificates: judgeCertificate,
  apply: applySums,
  "hold-out": async (g) => holdOutExamples(g),
  cohorts: answerQuestion,
  rounds: playRound,
};

async function deriveKey(g: Json): Promise<Json> {
  if (g.derive === "public") return { public: toHex(await publicKeyOf(fromHex(g.private))) };
  if (g.derive === "commitment") return { commitment: toHex(await seedCommitment(fromHex(g.seed))) };
  if (g.derive === "self") return { key: toHex(await selfKey(fromHex(g.t1), fromHex(g.seed), g.index)) };
  const shared = await agree(await agreementKey(fromHex(g.private)), fromHex(g.public));
  const derive = g.derive === "mask" ? maskKey : shareKey;
  return { key: toHex(await derive(fromHex(g.t1), shared, g.from, g.to)) };
}

async function expand(g: Json): Promise<Json> {
  const stream = await MaskStream.of(fromHex(g.key));
  const first = Math.floor(g.start / 4) * 4;
  const words = (await stream.words(first, g.start - first + g.count)).slice(g.start - first);
  const mask = 2 ** g.ring_bits;
  return { elements: [...words].map((word) => word % mask) };
}

function packOrUnpack(g: Json): Json {
  if (!isRingBits(g.ring_bits)) refuse(`a ring of ${g.ring_bits} bits does not exist`);
  if (g.direction === "unpack") {
    const elements = unpack(fromHex(g.packed), g.ring_bits);
    if (elements.length !== g.count) refuse(`${g.packed.length / 2} bytes hold ${elements.length}, expected ${g.count}`);
    return { elements: [...elements] };
  }
  if (g.elements.some((value: number) => value >= 2 ** g.ring_bits)) refuse("an element is not in the ring");
  return { packed: toHex(pack(Uint32Array.from(g.elements as number[]), g.ring_bits)) };
}

function shareOrRecover(g: Json): Json {
  if (g.do === "share") {
    const [secret, coefficients] = [fromHex(g.secret), fromHex(g.coefficients)];
    const shares = Array.from({ length: g.peers }, (_, i) => toHex(shareOf(secret, g.threshold, i, coefficients)));
    return { shares };
  }
  const shares = new Map(g.shares.map((s: Json) => [s.index, fromHex(s.share)])) as Map<number, never>;
  if (shares.size !== g.shares.length) refuse("two shares of one index");
  if (shares.size < g.threshold) refuse(`${shares.size} shares, expected ${g.threshold}`);
  return { secret: toHex(recoverSecret(new Map([...shares].slice(0, g.threshold)))) };
}

async function openBoxOf(g: Json): Promise<Json> {
  const shared = await agree(await agreementKey(fromHex(g.private)), fromHex(g.public));
  const key = await shareKey(fromHex(g.t1), shared, g.from, g.to);
  const pair = await openShareBox(key, fromHex(g.t1), g.from, g.to, fromHex(g.box));
  return { share_of_b: toHex(pair.seed), share_of_sk: toHex(pair.key) };
}

async function quantiseUpdate(g: Json): Promise<Json> {
  const groups = g.groups.map((group: Json) => ({
    fraction: group.weight / g.max_examples,
    ratios: group.means.map((mean: number, i: number) => mean / group.bounds[i]),
  }));
  const update = { values: floatsOf(g.update), groups };
  const length = g.randoms.length;
  const out = await quantise(update, {
    clip: g.clip,
    largestValue: 2 ** (g.value_bits - 1) - 1,
    paddedLength: Math.ceil(length / 8) * 8,
    rounding: async () => Uint32Array.from(g.randoms as number[]),
  });
  return { quantised: [...new Int32Array(out.buffer).subarray(0, length)] };
}

/** The round's parameters as vectors write them. */
export function settingOf(g: Json, rest: { roundId: string; planDigest: string; modelDigest: string }): RoundSetting {
  return {
    ...rest,
    runId: g.run_id,
    cohort: g.cohort,
    minSurvivors: g.min_survivors,
    ringBits: g.ring_bits,
    valueBits: g.value_bits,
    replicas: g.replicas,
    vectorLength: g.elements,
    clip: g.clip,
    ...("sources" in g ? { sources: g.sources, multiplicity: g.multiplicity } : {}),
  };
}

async function bindRound(g: Json): Promise<Json> {
  const roundId = await roundIdOf(g.parameters.run_id, g.round, g.attempt);
  const digests = { roundId: toHex(roundId), planDigest: g.plan_digest, modelDigest: g.model_digest };
  const parameters = new RoundParameters(settingOf(g.parameters, digests));
  const t0 = await parameters.t0();
  const t1 = await rosterDigest(t0, g.adverts.map((advert: string) => fromHex(advert)));
  const masked = bitsOf(g.masked);
  const t2 = await maskedDigest(t1, masked);
  const commits = g.commits.map((entry: Json) => [entry.index, fromHex(entry.message)] as const);
  commits.sort((a: [number], b: [number]) => a[0] - b[0]);
  const root = await commitRoot(t2, commits);
  const plan = parameters.chunks(masked);
  const views = Array.from({ length: parameters.size }, (_, view) => leaderOf(t0, view, parameters.size));
  return {
    round_id: digests.roundId,
    threshold: parameters.threshold,
    bound: parameters.quorum,
    parameters: toHex(parameters.encode()),
    t0: toHex(t0),
    leaders: await Promise.all(views),
    t1: toHex(t1),
    t2: toHex(t2),
    chunks: Array.from({ length: plan.count }, (_, chunk) => [...plan.bounds(chunk)]),
    root: toHex(root),
    t3: toHex(await survivorsDigest(t2, bitsOf(commits.map(([peer]: [number]) => peer)), root)),
  };
}

/** Decodes, and checks that encoding gives the bytes back. */
function decodeMessage(g: Json): Json {
  const received = parseMessage(fromHex(g.bytes), boundsOf(g.context));
  const again = toHex(encodeBody(received.sender, received.message, boundsOf(g.context).tag));
  if (again + toHex(SIGNED.has(received.message.type) ? received.signature : new Uint8Array(0)) !== g.bytes) {
    throw new Error(`a ${received.message.type} is encoded to other bytes than it was decoded from`);
  }
  return toJson(received);
}

async function verifyMessage(g: Json): Promise<Json> {
  const received = parseMessage(fromHex(g.bytes), boundsOf(g.context));
  const [label, payload, signature] = await signedPartOf(received, g);
  await verify(g.identity, label, payload, signature);
  return { covered: toHex(new TextEncoder().encode(label)) + toHex(payload) };
}

async function signedPartOf(received: Received, g: Json) {
  const t0 = fromHex(g.t0);
  if (isOf(received, "sum")) {
    const { chunk, packed, signature } = received.message;
    return [SUM_LABEL, await sumPayload(t0, fromHex(g.t3), chunk, packed), signature] as const;
  }
  const body = received.raw.slice(0, received.raw.length - received.signature.length);
  return [...signedPart(received.message, body, g.context.round_id, t0), received.signature] as const;
}

async function acceptAdvert(g: Json): Promise<Json> {
  const received = parseMessage(fromHex(g.bytes), boundsOf(g.context));
  if (!isOf(received, "advert")) refuse(`expected an advert, got a ${received.message.type}`);
  const body = received.raw.slice(0, -64);
  await verify(g.identity, ...signedPart(received.message, body, g.context.round_id, fromHex(g.t0)), received.signature);
  const advert = received.message;
  if (toHex(advert.t0) !== g.t0) refuse("the advert is bound to another T0");
  checkAdvertKeys(advert, received.sender, g.keys_seen.map((key: string) => fromHex(key)));
  if (toHex(advert.fingerprint) !== g.link_fingerprint) refuse("the live link shows another certificate");
  return { accepted: true };
}

async function judgeCertificate(g: Json): Promise<Json> {
  const received = parseMessage(fromHex(g.bytes), boundsOf(g.context));
  if (!isOf(received, "certificate")) refuse(`expected a certificate, got a ${received.message.type}`);
  const tag = boundsOf(g.context).tag;
  await checkCertificate(received.message, {
    sender: received.sender,
    t2: fromHex(g.t2),
    maskSet: bitsOf(g.masked),
    threshold: g.threshold,
    quorum: g.bound,
    verifyVote: async (voter, vote, signature) => {
      const body = encodeBody(voter, vote, tag);
      await verify(g.identities[voter], ...signedPart(vote, body, g.context.round_id, fromHex(g.t0)), signature);
    },
  });
  const { survivors, root, voters } = received.message;
  return { survivors: indexesOf(survivors), root: toHex(root), voters: indexesOf(voters) };
}

async function applySums(g: Json): Promise<Json> {
  const parameters = floatsOf(g.theta).length;
  const model = floatsOf(g.theta + g.buffers + g.moments);
  const length = floatsOf(g.theta + g.buffers).length;
  const survivors = bitsOf(Array.from({ length: g.survivors }, (_, i) => i));
  const largest = 2 ** (g.value_bits - 1) - 1;
  const sums = signedSum(Uint32Array.from(g.sums as number[]), g.ring_bits, g.survivors * largest);
  const lost: [number, number][] = g.weight_lost ? [[length, length + 1]] : [];
  const aggregate = { sums, survivors, contributions: g.survivors as number, lost };
  const optimizer = serverOptimizerSchema.read(g.optimizer, "optimizer");
  const applying = { clip: g.clip, largestValue: largest, optimizer, parameterCount: parameters };
  const next = applyAggregate(model, aggregate, applying);
  return {
    theta: toHex(modelBytes(next.slice(0, parameters))),
    buffers: toHex(modelBytes(next.slice(parameters, length))),
    moments: toHex(modelBytes(next.slice(length))),
    tail: [...sums.subarray(length)],
    tail_digest: toHex(await sha256(tailBytes(aggregate, length))),
    model_digest: await modelDigest(next),
  };
}

function holdOutExamples(g: Json): Json {
  try {
    return { held: [...parted(g.examples, g.fraction, "the case").held] };
  } catch (error) {
    if (!(error instanceof UnusableDataError)) throw error;
    return refuse(error.message);
  }
}
