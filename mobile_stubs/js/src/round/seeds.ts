/** What is revealed about whom, and what comes back (spec 07 §8): never both secrets of one peer. */

import { type Bits, bitsOf, indexesOf } from "../protocol/bits.js";
import { type Bytes, equalBytes } from "../protocol/bytes.js";
import { MessageError } from "../protocol/errors.js";
import { publicKeyOf, seedCommitment, type SharePair } from "../secagg/keys.js";
import { recoverSecret } from "../secagg/shamir.js";
import { type Advert, type RevealedShare, Secret } from "./messages.js";
import { agreed } from "./state.js";

/** Subsets of shares tried when a share comes in, so that a few liars cost time, not the round. */
const MAX_SUBSETS = 512;
/** Subsets tried in the whole attempt: what liars can make a peer compute. */
const MAX_ATTEMPTS = 8192;

/** What the book is opened with; `survivors` and `dropouts` make up the mask set. */
export interface SeedBookOptions {
  readonly threshold: number;
  readonly survivors: Bits;
  readonly dropouts: Bits;
  readonly adverts: ReadonlyMap<number, Advert>;
  readonly ownShares: ReadonlyMap<number, SharePair>;
  readonly ownIndex: number;
}

/**
 * Collects self-mask seeds of survivors and mask keys of dropouts, and decides what this peer may reveal.
 *
 * The certificate fixes for each peer of the mask set which one of its two secrets may ever be known. Nothing in this
 * class can hand out the other one.
 */
export class SeedBook {
  private readonly kinds = new Map<number, number>();
  private readonly shares = new Map<number, Map<number, Bytes>>();
  private readonly secrets = new Map<number, Bytes>();
  private readonly revealed = new Set<number>();
  private readonly failures = new Map<number, number>();
  private attempts = 0;

  constructor(private readonly options: SeedBookOptions) {
    for (const peer of indexesOf(options.survivors)) this.kinds.set(peer, Secret.SEED);
    for (const peer of indexesOf(options.dropouts)) this.kinds.set(peer, Secret.MASK_KEY);
    for (const peer of this.kinds.keys()) {
      const own = this.ownShare(peer);
      this.shares.set(peer, new Map(own === null ? [] : [[options.ownIndex, own]]));
    }
  }

  /** Peers whose secret is not known yet. */
  get missing(): Bits {
    return bitsOf([...this.kinds.keys()].filter((peer) => !this.secrets.has(peer)));
  }

  /** The recovered seed or mask key of a peer. */
  secret(peer: number): Bytes {
    return agreed(this.secrets.get(peer), `secret of peer ${peer}`);
  }

  /** This peer's shares about others that may be revealed and were not before. */
  reveal(peers: Bits): RevealedShare[] {
    const out: RevealedShare[] = [];
    for (const about of indexesOf(peers)) {
      const kind = this.kinds.get(about);
      const share = this.ownShare(about);
      if (kind === undefined || share === null || this.revealed.has(about)) continue;
      this.revealed.add(about);
      out.push({ about, kind, share });
    }
    return out;
  }

  /**
   * A survivor's own seed.
   *
   * @throws MessageError the peer is no survivor, or the seed is not the advertised one.
   */
  async addSeed(peer: number, seed: Bytes): Promise<void> {
    if (this.kinds.get(peer) !== Secret.SEED) {
      throw new MessageError(`peer ${peer} revealed its seed but is not in the survivor set`);
    }
    if (!(await this.fits(peer, seed))) {
      throw new MessageError(`peer ${peer} revealed another seed than it committed to`);
    }
    this.secrets.set(peer, seed);
  }

  /**
   * A share from another peer; the secret is recovered once t shares fit its commitment.
   *
   * @throws MessageError the share is of a secret that this certificate does not open.
   */
  async addShare(sender: number, { about, kind, share }: RevealedShare): Promise<void> {
    const shares = this.shares.get(about);
    if (shares === undefined || this.kinds.get(about) !== kind) {
      throw new MessageError(`peer ${sender} revealed a share about peer ${about} that the certificate does not open`);
    }
    if (shares.has(sender)) return;
    shares.set(sender, share);
    await this.tryRecover(about, shares, sender);
  }

  /**
   * Every subset holds the newest share: those without it were tried before. Peers whose shares stood in sets that
   * fitted nothing come last.
   */
  private async tryRecover(about: number, shares: ReadonlyMap<number, Bytes>, newest: number): Promise<void> {
    const { threshold } = this.options;
    if (this.secrets.has(about) || shares.size < threshold) return;
    const rest = [...shares.keys()].filter((peer) => peer !== newest);
    rest.sort((a, b) => (this.failures.get(a) ?? 0) - (this.failures.get(b) ?? 0) || a - b);
    let tried = 0;
    for (const subset of combinations(rest, threshold - 1)) {
      if (tried++ >= MAX_SUBSETS || this.attempts++ >= MAX_ATTEMPTS) return;
      const chosen = [newest, ...subset];
      const secret = recoverSecret(new Map(chosen.map((peer) => [peer, shares.get(peer) as Bytes])));
      if (await this.fits(about, secret)) {
        this.secrets.set(about, secret);
        return;
      }
      for (const peer of chosen) this.failures.set(peer, (this.failures.get(peer) ?? 0) + 1);
    }
  }

  private async fits(peer: number, secret: Bytes): Promise<boolean> {
    const advert = agreed(this.options.adverts.get(peer), `advert of peer ${peer}`);
    if (this.kinds.get(peer) === Secret.SEED) return equalBytes(await seedCommitment(secret), advert.seedCommitment);
    return equalBytes(await publicKeyOf(secret), advert.maskPublic);
  }

  private ownShare(peer: number): Bytes | null {
    const pair = this.options.ownShares.get(peer);
    if (pair === undefined) return null;
    return this.kinds.get(peer) === Secret.SEED ? pair.seed : pair.key;
  }
}

/** All subsets of a size, in the order of their items. */
function* combinations(items: readonly number[], size: number): Generator<number[]> {
  if (size === 0) {
    yield [];
    return;
  }
  for (let i = 0; i + size <= items.length; i++) {
    for (const rest of combinations(items.slice(i + 1), size - 1)) yield [items[i] as number, ...rest];
  }
}
