/** The second half of R3 (spec 07 §7): one vote per peer and round, and the quorum certificate of t votes. */

import { bitsOf, count, has, isWithin, NONE } from "../protocol/bits.js";
import { equalBytes, toHex } from "../protocol/bytes.js";
import { MessageError, ProtocolError, RoundFailedError } from "../protocol/errors.js";
import { checkCertificate } from "./certificate.js";
import type { Collecting } from "./collecting.js";
import { Asked, type Certificate, type Decide, type Received, type Vote } from "./messages.js";
import type { Requests } from "./requests.js";
import { sameBody } from "./same.js";
import { agreed, type RoundState } from "./state.js";
import type { Views } from "./views.js";

/** Votes seen by this peer, its own one, and the certificate. */
export class Voting {
  certificate: Received<Certificate> | null = null;
  private readonly votes = new Map<number, Received<Vote>>();
  private readonly early = new Map<number, Received<Certificate>>();

  constructor(
    private readonly state: RoundState,
    private readonly views: Views,
    private readonly collecting: Collecting,
    private readonly requests: Requests,
  ) {}

  /**
   * Keep the first vote of a peer.
   *
   * @throws MessageError it voted for something else before.
   */
  keepVote(received: Received<Vote>): void {
    const known = this.votes.get(received.sender);
    if (known === undefined) this.votes.set(received.sender, received);
    else if (!sameBody(known, received)) {
      throw new MessageError(`peer ${received.sender} voted for two different survivor sets`);
    }
  }

  /**
   * Keep the certificate once it is checked; before there is a mask set, the first one of each peer.
   *
   * @throws ProtocolError it is of another or too small set, or has too few valid votes.
   */
  async keepCertificate(received: Received<Certificate>): Promise<void> {
    const { state } = this;
    if (this.certificate !== null) return;
    if (state.t2 === null) {
      if (!this.early.has(received.sender)) this.early.set(received.sender, received);
      return;
    }
    if (received.sender !== state.ownIndex) {
      await checkCertificate(received.message, {
        sender: received.sender,
        t2: state.t2,
        maskSet: state.maskSet,
        threshold: state.parameters.threshold,
        quorum: state.parameters.quorum,
        verifyVote: (voter, vote, signature) => state.post.codec.verifyVote(voter, vote, signature),
      });
    }
    this.certificate = received;
  }

  /** The mask set is known: check the certificates that came before it. */
  async begin(): Promise<void> {
    const early = [...this.early.values()];
    this.early.clear();
    for (const received of early) {
      try {
        await this.keepCertificate(received);
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
        this.state.post.report(received.sender, error.message);
      }
    }
  }

  /**
   * Whether this peer can vouch for a survivor set; false while it lacks the commits that give its root.
   *
   * @throws MessageError the set is too small or reaches beyond the mask set.
   */
  async judge(decided: Decide, sender: number): Promise<boolean> {
    const { parameters, maskSet } = this.state;
    const survivors = decided.members;
    if (!isWithin(survivors, maskSet) || !parameters.isLargeEnough(survivors)) {
      throw new MessageError(
        `peer ${sender} decided on a survivor set of ${count(survivors)} peers, expected at least ` +
          `${parameters.quorum}, all of the mask set`,
      );
    }
    const root = await this.collecting.root(survivors);
    if (root !== null && equalBytes(root, decided.root)) return true;
    const absent = survivors & ~this.collecting.store.commits;
    for (const holder of this.views.holders(decided)) {
      await this.requests.need(holder, Asked.COMMITS, absent === NONE ? survivors : absent);
    }
    return false;
  }

  /** Cast this peer's one vote in the round; it is written down before it leaves. */
  async vote(decided: Decide): Promise<void> {
    const { state } = this;
    if (this.views.vote !== null || !state.isIn(state.maskSet)) return;
    const vote = voteFor(decided, state);
    const survivors = vote.survivors.toString(16);
    state.post.persist("voted", `${toHex(vote.t2)}:${survivors}:${toHex(vote.root)}`);
    this.views.expectSoon();
    await this.views.cast((await state.post.encode(vote)) as Received<Vote>);
  }

  /**
   * As leader: make the certificate once t equal votes are here.
   *
   * @throws RoundFailedError too few votes came in time.
   */
  async gather(decided: Decide): Promise<void> {
    if (this.certificate !== null) return;
    const { state } = this;
    const { threshold } = state.parameters;
    const wanted = voteFor(decided, state);
    const equal = [...this.votes.values()]
      .filter(({ sender, message }) => has(state.maskSet, sender) && isSameVote(message, wanted))
      .sort((a, b) => a.sender - b.sender)
      .slice(0, threshold);
    if (equal.length < threshold) {
      if (!this.views.isLeft()) return;
      throw new RoundFailedError(`${equal.length} votes for the survivor set, expected ${threshold}`);
    }
    const voters = bitsOf(equal.map((vote) => vote.sender));
    const signatures = equal.map((vote) => vote.signature);
    await state.post.broadcast({ ...wanted, type: "certificate", voters, signatures });
  }
}

function voteFor(decided: Decide, state: RoundState): Vote {
  return { type: "vote", t2: agreed(state.t2, "mask set"), survivors: decided.members, root: decided.root };
}

function isSameVote(a: Vote, b: Vote): boolean {
  return a.survivors === b.survivors && equalBytes(a.t2, b.t2) && equalBytes(a.root, b.root);
}
