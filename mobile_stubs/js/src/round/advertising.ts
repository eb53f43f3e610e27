/** R0 (spec 07 §4): adverts, what is refused about them, and the roster they hash to. */

import { type Bits, bitsOf, count, indexesOf, NONE } from "../protocol/bits.js";
import { type Bytes, equalBytes, toHex } from "../protocol/bytes.js";
import { MessageError, RoundFailedError } from "../protocol/errors.js";
import { seedCommitment } from "../secagg/keys.js";
import { rosterDigest } from "../secagg/parameters.js";
import { checkAdvertKeys } from "./adverts.js";
import { type Advert, Asked, type Decide, type Received } from "./messages.js";
import type { Requests } from "./requests.js";
import { sameBody } from "./same.js";
import { agreed, type RoundState } from "./state.js";
import type { Views } from "./views.js";

/** Keeps one advert per peer, with the secrets that this peer shares with it. */
export class Advertising {
  private readonly adverts = new Map<number, Received<Advert>>();
  private readonly shared = new Map<number, { mask: Bytes; enc: Bytes }>();

  constructor(
    private readonly state: RoundState,
    private readonly views: Views,
    private readonly requests: Requests,
  ) {}

  /** Send this peer's advert. */
  async begin(): Promise<void> {
    const { secrets, t0, post, options } = this.state;
    await post.broadcast({
      type: "advert",
      t0,
      maskPublic: secrets.maskPublic,
      encPublic: secrets.encPublic,
      seedCommitment: await seedCommitment(secrets.selfMaskSeed),
      fingerprint: options.fingerprint,
    });
  }

  /**
   * Keep an advert. A second one by the same peer is refused, except as the answer to a question about a roster that
   * does not hash to what its leader decided: who advertises twice cannot split the cohort by it.
   *
   * @throws MessageError it is for another round, contradicts its link or an earlier one, or holds unfit keys.
   */
  async keep(received: Received<Advert>, via: number): Promise<void> {
    const { message: advert, sender } = received;
    const { state } = this;
    if (!equalBytes(advert.t0, state.t0)) {
      throw new MessageError(`peer ${sender} advertised for another round, plan, model or terms`);
    }
    const known = this.adverts.get(sender);
    if (known !== undefined) {
      if (sameBody(known, received)) return;
      const isAnswer = via !== sender && state.t1 === null && this.requests.asked(via, Asked.ADVERTS);
      if (sender === state.ownIndex || !isAnswer) {
        throw new MessageError(`peer ${sender} advertised twice with different keys`);
      }
    }
    if (sender !== state.ownIndex) {
      if (via === sender) this.checkFingerprint(sender, advert);
      checkAdvertKeys(advert, sender, [state.secrets.maskPublic, state.secrets.encPublic]);
      this.shared.set(sender, await state.secrets.agreeWith(advert.maskPublic, advert.encPublic));
    }
    this.adverts.set(sender, received);
    // a forwarded advert is its peer's, whatever link this peer has: it counts, and the link does not
    if (sender !== state.ownIndex && !this.checkLink(sender)) state.post.close(sender);
  }

  /** Whether a link shows the certificate that its peer advertised, as far as that is known. */
  checkLink(index: number): boolean {
    const known = this.adverts.get(index);
    if (known === undefined) return true;
    try {
      this.checkFingerprint(index, known.message);
      return true;
    } catch (error) {
      this.state.post.report(index, (error as MessageError).message);
      return false;
    }
  }

  /** Peers whose advert is held. */
  have(): Bits {
    return bitsOf(this.adverts.keys());
  }

  /** The advert of a peer as it came. */
  forwardable(index: number): Received | null {
    return this.adverts.get(index) ?? null;
  }

  /** The advert of a roster peer. */
  advert(index: number): Advert {
    return agreed(this.adverts.get(index), `advert of peer ${index}`).message;
  }

  /** X25519 secret of the mask keys of this peer and another. */
  maskSecret(index: number): Bytes {
    return agreed(this.shared.get(index), `secret with peer ${index}`).mask;
  }

  /** X25519 secret of the enc keys of this peer and another. */
  boxSecret(index: number): Bytes {
    return agreed(this.shared.get(index), `secret with peer ${index}`).enc;
  }

  /** Peers for a roster: all that advertised, without those who repeat an earlier peer's key. */
  propose(): Bits {
    const used = new Set<string>();
    const chosen: number[] = [];
    for (const [index, { message }] of this.adverts) {
      const keys = keysOf(message);
      if (!keys.some((key) => used.has(key))) chosen.push(index);
      for (const key of keys) used.add(key);
    }
    return bitsOf(chosen);
  }

  /** T1 of a roster all of whose adverts are held. */
  digest(roster: Bits): Promise<Bytes> {
    const adverts = indexesOf(roster).map((index) => agreed(this.adverts.get(index), `advert of ${index}`).raw);
    return rosterDigest(this.state.t0, adverts);
  }

  /**
   * Whether a roster can be adopted; false while adverts of it are missing.
   *
   * @throws MessageError it is too small, or two of its peers use one key.
   * @throws RoundFailedError it leaves this peer out.
   */
  async judge(decided: Decide, sender: number): Promise<boolean> {
    const { state } = this;
    const roster = decided.members;
    if (!state.parameters.isLargeEnough(roster)) {
      throw new MessageError(
        `peer ${sender} decided on a roster of ${count(roster)} peers, expected at least ${state.parameters.quorum}`,
      );
    }
    if (!state.isIn(roster)) throw new RoundFailedError(`the roster of ${count(roster)} peers leaves this one out`);
    const absent = roster & ~this.have();
    if (absent !== NONE || !equalBytes(await this.digest(roster), decided.root)) {
      for (const holder of this.views.holders(decided)) {
        await this.requests.need(holder, Asked.ADVERTS, absent === NONE ? roster : absent);
      }
      return false;
    }
    const keys = indexesOf(roster).flatMap((index) => keysOf(this.advert(index)));
    if (new Set(keys).size !== keys.length) {
      throw new MessageError(`peer ${sender} decided on a roster in which a key is used twice`);
    }
    return true;
  }

  /** Drop the secrets shared with others. */
  forgetSecrets(): void {
    this.shared.clear();
  }

  private checkFingerprint(index: number, advert: Advert): void {
    const live = this.state.post.link(index).fingerprint;
    if (live !== null && !equalBytes(live, advert.fingerprint)) {
      throw new MessageError(`peer ${index} advertised a certificate that is not the one of its link`);
    }
  }
}

function keysOf(advert: Advert): readonly string[] {
  return [toHex(advert.maskPublic), toHex(advert.encPublic)];
}
