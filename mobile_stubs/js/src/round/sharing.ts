/** R1 (spec 07 §5): shares of this peer's two secrets go out in boxes, those of others come in. */

import { type Bits, bitsOf, count, has, indexesOf, isWithin, NONE } from "../protocol/bits.js";
import type { Bytes } from "../protocol/bytes.js";
import { MessageError, ProtocolError } from "../protocol/errors.js";
import { closeShareBox, openShareBox, type SharePair, shareKey } from "../secagg/keys.js";
import { shareOf } from "../secagg/shamir.js";
import type { Advertising } from "./advertising.js";
import { chooseMaskSet } from "./leading.js";
import type { Ack, Decide } from "./messages.js";
import { agreed, type RoundState } from "./state.js";

/** Shares held by this peer, and what others say they hold. */
export class Sharing {
  /** Shares of others, and of this peer's own, by whose they are. */
  readonly held = new Map<number, SharePair>();
  private readonly boxes = new Map<number, Bytes>();
  private readonly acks = new Map<number, Bits>();

  constructor(
    private readonly state: RoundState,
    private readonly advertising: Advertising,
  ) {}

  /** Keep the first box of a peer until its roster is known. */
  keepBox(sender: number, box: Bytes): void {
    if (!this.held.has(sender) && !this.boxes.has(sender)) this.boxes.set(sender, box);
  }

  /** Whose shares a peer holds; it never holds fewer than it once did. */
  keepAck(sender: number, ack: Ack): void {
    this.acks.set(sender, (this.acks.get(sender) ?? NONE) | ack.held);
  }

  /** Deal the shares of this peer's self-mask seed and mask key to the roster. */
  async begin(): Promise<void> {
    const { secrets, parameters, roster, ownIndex } = this.state;
    const [ofSeed, ofKey] = this.state.shareCoefficients();
    for (const peer of indexesOf(roster)) {
      const pair = {
        seed: shareOf(secrets.selfMaskSeed, parameters.threshold, peer, ofSeed),
        key: shareOf(secrets.maskPrivate, parameters.threshold, peer, ofKey),
      };
      if (peer === ownIndex) this.held.set(peer, pair);
      else await this.deal(peer, pair);
    }
  }

  /** Decrypt the boxes that came; one that does not open is reported and may be sent again. */
  async openBoxes(): Promise<void> {
    for (const peer of indexesOf(this.state.roster)) {
      const box = this.boxes.get(peer);
      if (box === undefined) continue;
      this.boxes.delete(peer);
      try {
        this.held.set(peer, await this.open(peer, box));
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
        this.state.post.report(peer, error.message);
      }
    }
  }

  /** What to tell the leader: once all live peers' shares are here, or the stage is overdue. */
  ack(view: number): Ack | null {
    const held = bitsOf(this.held.keys());
    const isWaiting = (this.state.live(this.state.roster) & ~held) !== NONE;
    return isWaiting && !this.state.isOverdue() ? null : { type: "ack", view, held };
  }

  /**
   * As leader: a mask set, once all live peers have answered; at the deadline they answer, so a grace later. Peers that
   * were in this stage long before this one answered without its shares, and answer again. Those leave a later view two
   * graces after it began: there it acts once it has waited one of them.
   */
  propose(isLaterView: boolean, hasWaited: boolean): Bits | null {
    const { state } = this;
    const live = state.live(state.roster);
    const isLast = state.isOverdue(1);
    if (!isWithin(live, bitsOf(this.acks.keys())) && !isLast && !(isLaterView && hasWaited)) return null;
    const chosen = chooseMaskSet(new Map([...this.acks].filter(([peer]) => has(state.roster, peer))));
    if (!isWithin(live, chosen) && !(isLaterView ? hasWaited : state.isOverdue())) return null;
    if (!state.parameters.isLargeEnough(chosen) && !isLast) return null;
    return chosen;
  }

  /**
   * Check that a mask set can be adopted.
   *
   * @throws MessageError it is too small or reaches beyond the roster.
   */
  judge(decided: Decide, sender: number): boolean {
    const { parameters, roster } = this.state;
    if (!isWithin(decided.members, roster) || !parameters.isLargeEnough(decided.members)) {
      throw new MessageError(
        `peer ${sender} decided on a mask set of ${count(decided.members)} peers, expected at least ` +
          `${parameters.quorum}, all of the roster`,
      );
    }
    return true;
  }

  private async deal(peer: number, pair: SharePair): Promise<void> {
    const t1 = agreed(this.state.t1, "roster");
    const own = this.state.ownIndex;
    const key = await shareKey(t1, this.advertising.boxSecret(peer), own, peer);
    await this.state.post.send(peer, { type: "share", box: await closeShareBox(key, t1, own, peer, pair) });
  }

  private async open(peer: number, box: Bytes): Promise<SharePair> {
    const t1 = agreed(this.state.t1, "roster");
    const key = await shareKey(t1, this.advertising.boxSecret(peer), peer, this.state.ownIndex);
    return openShareBox(key, t1, peer, this.state.ownIndex, box);
  }
}
