/** R4 (spec 07 §8): what this peer reveals under the certificate, and what others reveal to it. */

import { type Bits, bitsOf, has, indexesOf, NONE } from "../protocol/bits.js";
import type { Bytes } from "../protocol/bytes.js";
import { MessageError, RoundFailedError } from "../protocol/errors.js";
import type { Advertising } from "./advertising.js";
import { type Certificate, type Received, type Reveal, type RevealedShare, Secret } from "./messages.js";
import { SeedBook } from "./seeds.js";
import type { Sharing } from "./sharing.js";
import type { RoundState } from "./state.js";

/** Reveals that wait for the certificate, and from then on the book of seeds. */
export class Unmasking {
  book: SeedBook | null = null;
  private readonly earlyShares = new Map<number, Map<string, RevealedShare>>();
  private readonly earlySeeds = new Map<number, Bytes>();

  constructor(
    private readonly state: RoundState,
    private readonly advertising: Advertising,
    private readonly sharing: Sharing,
  ) {}

  /** Peers that revealed something, so they hold a certificate. */
  get revealers(): readonly number[] {
    return [...this.earlyShares.keys()].sort((a, b) => a - b);
  }

  /**
   * Use a reveal, or keep it until there is a certificate: one seed, and one share per peer and kind.
   *
   * @throws MessageError it tells something that the certificate does not open.
   */
  async keep(received: Received<Reveal>): Promise<void> {
    const { sender, message: reveal } = received;
    if (this.book !== null) {
      await this.take(this.book, sender, reveal.seed, reveal.shares);
      return;
    }
    if (reveal.seed !== null && !this.earlySeeds.has(sender)) this.earlySeeds.set(sender, reveal.seed);
    const kept = this.earlyShares.get(sender) ?? new Map<string, RevealedShare>();
    this.earlyShares.set(sender, kept);
    for (const share of reveal.shares) {
      const name = `${share.about} ${share.kind}`;
      if (!kept.has(name)) kept.set(name, share);
    }
  }

  /** Adopt the certificate: from here on it alone says which secret of whom this peer may tell. */
  async begin(certificate: Certificate): Promise<void> {
    const { state } = this;
    await state.adoptSurvivors(certificate.survivors, certificate.root);
    const dropouts = state.maskSet & ~state.survivors;
    const book = new SeedBook({
      threshold: state.parameters.threshold,
      survivors: state.survivors,
      dropouts,
      adverts: new Map(indexesOf(state.maskSet).map((peer) => [peer, this.advertising.advert(peer)])),
      ownShares: this.sharing.held,
      ownIndex: state.ownIndex,
    });
    this.book = book;
    const seed = state.isIn(state.survivors) ? state.secrets.selfMaskSeed.slice() : null;
    if (seed !== null) await book.addSeed(state.ownIndex, seed);
    const gone = state.survivors & ~state.live(state.survivors);
    await this.reveal(book, dropouts | gone, seed);
    await this.takeEarly(book);
  }

  /**
   * Reveal shares about survivors that are gone or silent; gives whether every secret is known.
   *
   * @throws RoundFailedError secrets are missing and the time for them is over.
   */
  async step(book: SeedBook): Promise<boolean> {
    const { state } = this;
    const missing = book.missing;
    const silent = state.isOverdue() ? missing : missing & ~state.live(missing);
    await this.reveal(book, silent, null);
    if (missing !== NONE && state.isOverdue(1)) {
      throw new RoundFailedError(`the secrets of peers [${indexesOf(missing).join(", ")}] could not be recovered`);
    }
    return book.missing === NONE;
  }

  private async take(
    book: SeedBook,
    sender: number,
    seed: Bytes | null,
    shares: readonly RevealedShare[],
  ): Promise<void> {
    if (!has(this.state.roster, sender)) {
      throw new MessageError(`peer ${sender} revealed shares but is not in the roster`);
    }
    if (seed !== null) await book.addSeed(sender, seed);
    for (const share of shares) await book.addShare(sender, share);
    // somebody misses the secrets of these peers: with t such answers it recovers them
    await this.reveal(book, bitsOf(shares.map((share) => share.about)), null);
    this.state.changes++;
  }

  private async takeEarly(book: SeedBook): Promise<void> {
    for (const sender of this.revealers) {
      const shares = [...(this.earlyShares.get(sender)?.values() ?? [])];
      try {
        await this.take(book, sender, this.earlySeeds.get(sender) ?? null, shares);
      } catch (error) {
        if (!(error instanceof MessageError)) throw error;
        this.state.post.report(sender, error.message);
      }
    }
    this.earlyShares.clear();
    this.earlySeeds.clear();
  }

  private async reveal(book: SeedBook, about: Bits, seed: Bytes | null): Promise<void> {
    const shares = book.reveal(about);
    if (shares.length === 0 && seed === null) return;
    const told = shares.map((share) => `${share.about}:${share.kind}`);
    if (seed !== null) told.push(`${this.state.ownIndex}:${Secret.SEED}`);
    this.state.post.persist("revealed", told.join(","));
    await this.state.post.broadcast({ type: "reveal", seed, shares }, { toSelf: false });
  }
}
