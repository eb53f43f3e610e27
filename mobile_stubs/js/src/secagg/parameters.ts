/** Parameters of one round and how its vector is cut into chunks (spec 07 §1, §6). */

import type { Bytes } from "../protocol/bytes.js";
import { concat, parseHex64, utf8 } from "../protocol/bytes.js";
import { Writer } from "../protocol/binary.js";
import { type Bits, count, has, indexesOf } from "../protocol/bits.js";
import { sha256 } from "../protocol/crypto.js";
import { TermsError } from "../protocol/errors.js";
import type { PeerId } from "../protocol/identity.js";
import { MAX_COHORT, threshold } from "../protocol/terms.js";

/** Chunk starts are multiples of this, so every chunk starts on an AES block and on a packed byte. */
const ELEMENT_GROUP = 8;
const MAX_ELEMENTS = 2 ** 28;
const MAX_GROUPS = 1 << 16;
const RING_BITS = [16, 20, 24, 32] as const;

/** k: bits of one element. */
export type RingBits = (typeof RING_BITS)[number];

/** Whether a number of ring bits exists. */
export function isRingBits(value: number): value is RingBits {
  return RING_BITS.some((known) => known === value);
}

/** What T0 binds. `cohort` is sorted; `vectorLength` is d; digests and ids are 64 hexadecimal digits. */
export interface RoundSetting {
  readonly runId: string;
  readonly roundId: string;
  readonly planDigest: string;
  readonly modelDigest: string;
  readonly cohort: readonly PeerId[];
  readonly minSurvivors: number;
  readonly ringBits: number;
  readonly valueBits: number;
  readonly replicas: number;
  readonly vectorLength: number;
  readonly clip: number;
  /** Where groups' sums are combined (spec 08): for each peer the number of the group it speaks for; else empty. */
  readonly sources?: readonly number[];
  /** M: the most peers summed in what one group contributes; 1 where updates are summed. */
  readonly multiplicity?: number;
}

/** How a vector is cut among the peers of K, in index order. */
export class ChunkPlan {
  /** Elements of every chunk but the last. */
  readonly chunkElements: number;

  constructor(
    /** D: all elements, padding included. */
    readonly elements: number,
    /** Peers of K, ascending. */
    readonly peers: readonly number[],
    readonly replicas: number,
  ) {
    this.chunkElements = chunkElements(elements, peers.length);
  }

  /** m: chunks, none of them empty. */
  get count(): number {
    return Math.ceil(this.elements / this.chunkElements);
  }

  /** First element of a chunk and the one after its last. */
  bounds(chunk: number): readonly [number, number] {
    const start = chunk * this.chunkElements;
    return [start, Math.min(start + this.chunkElements, this.elements)];
  }

  /** Peers that hold a chunk before any reassignment. */
  owners(chunk: number): readonly number[] {
    const found = Array.from({ length: this.replicas }, (_, step) => this.peers[(chunk + step) % this.peers.length]);
    return [...new Set(found as number[])];
  }
}

/** The checked parameters of one attempt at a round. */
export class RoundParameters {
  readonly setting: RoundSetting;
  readonly ringBits: RingBits;
  private readonly digest: Promise<Bytes>;

  /**
   * Check ranges.
   *
   * @throws TermsError a value outside its range, or a cohort that is not sorted and distinct.
   * @throws EncodingError an id or digest that is none.
   */
  constructor(setting: RoundSetting) {
    this.setting = setting;
    this.ringBits = checkSetting(setting);
    this.digest = sha256(this.bound());
    this.digest.catch(() => undefined); // whoever asks for T0 sees the failure
  }

  /** n. */
  get size(): number {
    return this.setting.cohort.length;
  }

  /** t: shares that recover, votes that certify. */
  get threshold(): number {
    return threshold(this.size);
  }

  /** max(t, u_min): the fewest peers a roster, mask set or survivor set may have. */
  get quorum(): number {
    return Math.max(this.threshold, this.setting.minSurvivors);
  }

  /** L: the largest quantised value of one peer. */
  get largestValue(): number {
    return 2 ** (this.setting.valueBits - 1) - 1;
  }

  /** For each peer the number of the group it speaks for; empty where updates are summed. */
  get sources(): readonly number[] {
    return this.setting.sources ?? [];
  }

  /** Whether this cohort sums the sums of groups (spec 08), not updates. */
  get combines(): boolean {
    return this.sources.length > 0;
  }

  /** M: the most peers whose updates one contribution holds. */
  get multiplicity(): number {
    return this.setting.multiplicity ?? 1;
  }

  /** The largest value one contribution may hold: L, or M times L. */
  get largestContribution(): number {
    return this.multiplicity * this.largestValue;
  }

  /** How many updates or groups' sums a set of peers puts in: peers of one group put its sum in once. */
  contributions(members: Bits): number {
    return this.combines ? new Set(indexesOf(members).map((index) => this.sources[index])).size : count(members);
  }

  /** Whether a peer puts its group's sum in, and not zeros: of each group, the first in the mask set does. */
  contributes(index: number, maskSet: Bits): boolean {
    if (!this.combines) return has(maskSet, index);
    return index === indexesOf(maskSet).find((other) => this.sources[other] === this.sources[index]);
  }

  /** D: the vector's length rounded up to whole groups of eight. */
  get paddedLength(): number {
    return Math.ceil(this.setting.vectorLength / ELEMENT_GROUP) * ELEMENT_GROUP;
  }

  /** Packed bytes of the largest chunk that any valid mask set gives. */
  get maxChunkBytes(): number {
    return this.packedBytes(chunkElements(this.paddedLength, this.quorum));
  }

  /** T0: the digest every message of the round is bound to. */
  t0(): Promise<Bytes> {
    return this.digest;
  }

  /** Bytes that `elements` (a multiple of eight) take when packed. */
  packedBytes(elements: number): number {
    return (elements / 8) * this.ringBits;
  }

  /** The chunks among the peers of a mask set. */
  chunks(maskSet: Bits): ChunkPlan {
    return new ChunkPlan(this.paddedLength, indexesOf(maskSet), this.setting.replicas);
  }

  /** Whether a roster, mask set or survivor set has max(t, u_min) peers. */
  isLargeEnough(members: Bits): boolean {
    return count(members) >= this.quorum;
  }

  /** `parameters` of spec 07 §1. */
  encode(): Bytes {
    const { setting } = this;
    const clip = new DataView(new ArrayBuffer(8));
    clip.setFloat64(0, setting.clip, true);
    const writer = new Writer()
      .uint(this.size, 2)
      .uint(this.threshold, 2)
      .uint(this.quorum, 2)
      .uint(setting.ringBits, 1)
      .uint(setting.valueBits, 1)
      .uint(setting.replicas, 1)
      .u64(BigInt(setting.vectorLength))
      .raw(new Uint8Array(clip.buffer))
      .raw(parseHex64(setting.runId, "run id"));
    for (const peer of setting.cohort) writer.raw(parseHex64(peer, "peer id"));
    if (this.combines) writer.uint(this.multiplicity, 4); // nothing else binds who speaks for whom
    for (const source of this.sources) writer.uint(source, 2);
    return writer.bytes();
  }

  private bound(): Bytes {
    const { roundId, planDigest, modelDigest } = this.setting;
    return concat(
      utf8("p2psa/1/round"),
      parseHex64(roundId, "round id"),
      parseHex64(planDigest, "plan digest"),
      parseHex64(modelDigest, "model digest"),
      this.encode(),
    );
  }
}

/** The id of an attempt at a round (spec 06 §2), 32 bytes. */
export async function roundIdOf(run: string, round: number, attempt: number): Promise<Bytes> {
  const counts = new Writer().uint(round, 4).uint(attempt, 4).bytes();
  return sha256(utf8("p2psa/1/id"), parseHex64(run, "run id"), counts);
}

/** Index of the leader of a view (spec 07 §4). */
export async function leaderOf(t0: Bytes, view: number, size: number): Promise<number> {
  const digest = await sha256(utf8("p2psa/1/leader"), t0);
  return (new DataView(digest.buffer).getUint32(0, true) + view) % size;
}

/** T1 of adverts in index order, whole messages with signature (spec 07 §4). */
export async function rosterDigest(t0: Bytes, adverts: readonly Bytes[]): Promise<Bytes> {
  const size = new Writer().uint(adverts.length, 2).bytes();
  return sha256(utf8("p2psa/1/roster"), t0, size, ...adverts);
}

/** T2 of a mask set (spec 07 §5). */
export async function maskedDigest(t1: Bytes, maskSet: Bits): Promise<Bytes> {
  return sha256(utf8("p2psa/1/masked"), t1, new Writer().u64(maskSet).bytes());
}

/** Digest of the survivors' whole COMMIT messages, by ascending index (spec 07 §7). */
export async function commitRoot(t2: Bytes, commits: readonly (readonly [number, Bytes])[]): Promise<Bytes> {
  const writer = new Writer();
  for (const [peer, message] of commits) writer.uint(peer, 2).raw(await sha256(message));
  return sha256(utf8("p2psa/1/commits"), t2, writer.bytes());
}

/** T3 of a certified survivor set (spec 07 §8). */
export async function survivorsDigest(t2: Bytes, survivors: Bits, root: Bytes): Promise<Bytes> {
  return sha256(utf8("p2psa/1/survivors"), t2, new Writer().u64(survivors).bytes(), root);
}

function chunkElements(elements: number, peers: number): number {
  return Math.ceil(elements / (ELEMENT_GROUP * peers)) * ELEMENT_GROUP;
}

function checkSetting(setting: RoundSetting): RingBits {
  const { cohort, clip, valueBits, ringBits, replicas, minSurvivors, vectorLength } = setting;
  const size = cohort.length;
  if (size < 3 || size > MAX_COHORT) throw new TermsError(`round: a cohort has 3 to ${MAX_COHORT} peers, got ${size}`);
  if (cohort.some((peer, i) => i > 0 && peer <= (cohort[i - 1] as string))) {
    throw new TermsError("round: the cohort is not sorted by identity key, or names a peer twice");
  }
  if (!Number.isInteger(vectorLength) || vectorLength < 1 || vectorLength > MAX_ELEMENTS) {
    throw new TermsError(`round: a vector has 1 to ${MAX_ELEMENTS} elements, got ${vectorLength}`);
  }
  if (!isRingBits(ringBits) || (replicas !== 1 && replicas !== 2) || minSurvivors < 3) {
    throw new TermsError("round: ring bits, replicas or smallest survivor set outside their ranges");
  }
  const quorum = Math.max(threshold(size), minSurvivors);
  if (quorum > size) throw new TermsError(`round: ${quorum} peers must survive, the cohort has ${size}`);
  if (!(clip > 0 && clip < Infinity) || !Number.isInteger(valueBits) || valueBits < 2 || valueBits > 28) {
    throw new TermsError(`round: clip ${clip} or value bits ${valueBits} outside their ranges`);
  }
  const contributions = checkSources(setting);
  const multiplicity = setting.multiplicity ?? 1;
  if (contributions * multiplicity * (2 ** (valueBits - 1) - 1) >= 2 ** (ringBits - 1)) {
    const below = multiplicity > 1 ? `, each over up to ${multiplicity} peers,` : "";
    throw new TermsError(`round: ${contributions} values of ${valueBits} bits${below} overflow ${ringBits} ring bits`);
  }
  return ringBits;
}

/** Checks who speaks for which group; gives how many contributions there are. */
function checkSources({ cohort, sources, multiplicity = 1 }: RoundSetting): number {
  if (sources === undefined) {
    if (multiplicity !== 1) throw new TermsError(`round: ${multiplicity} peers below a contribution, but no groups are named`);
    return cohort.length;
  }
  if (sources.length !== cohort.length) {
    throw new TermsError(`round: groups are named for ${sources.length} peers, the cohort has ${cohort.length}`);
  }
  const groups = new Set(sources);
  if (groups.size < 2 || sources.some((group) => !Number.isInteger(group) || group < 0 || group >= MAX_GROUPS)) {
    throw new TermsError(`round: peers speak for 2 or more groups below ${MAX_GROUPS}, got ${[...groups].join(", ")}`);
  }
  if (!Number.isInteger(multiplicity) || multiplicity < 3 || multiplicity >= 2 ** 31) {
    throw new TermsError(`round: a group sums over 3 peers or more, got ${multiplicity}`);
  }
  return groups.size;
}
