/** NEED and its answers (spec 07 §3): asked once per peer and stage, answered a bounded number of times. */

import { type Bits, indexesOf } from "../protocol/bits.js";
import { MessageError } from "../protocol/errors.js";
import { Asked, BULK, type Need, type Received, SIGNED } from "./messages.js";
import type { RoundState } from "./state.js";

/** Times one peer is answered the same kind of NEED: an answer is larger than the question. */
const MAX_ANSWERS = 4;

/** What this peer asked of whom in this stage, and what it answered in this attempt. */
export class Requests {
  private readonly open = new Set<string>();
  private readonly answered = new Map<string, number>();
  private readonly sources = new Map<number, (item: number) => Received | null>();

  constructor(private readonly state: RoundState) {
    state.onEnter.push(() => this.open.clear());
  }

  /** Name where answers of a kind come from. */
  offer(what: number, source: (item: number) => Received | null): void {
    this.sources.set(what, source);
  }

  /** Ask a peer, or every live peer where that one is gone or is this peer itself. */
  async need(preferred: number, what: number, members: Bits): Promise<void> {
    const { state } = this;
    const isReachable = preferred !== state.ownIndex && state.isLive(preferred);
    for (const index of isReachable ? [preferred] : [...state.post.links.keys()]) {
      if (!state.isLive(index) || this.asked(index, what)) continue;
      this.open.add(`${index} ${what}`);
      await state.post.send(index, { type: "need", what, members });
    }
  }

  /** Whether a peer was asked for this in the current stage. */
  asked(index: number, what: number): boolean {
    return this.open.has(`${index} ${what}`);
  }

  /**
   * Send a peer what it lacks and this peer holds.
   *
   * @throws MessageError it asks too often.
   */
  async answer(sender: number, need: Need): Promise<void> {
    const name = `${sender} ${need.what}`;
    const times = (this.answered.get(name) ?? 0) + 1;
    if (times > MAX_ANSWERS) {
      throw new MessageError(`peer ${sender} asked for the same thing more than ${MAX_ANSWERS} times`);
    }
    this.answered.set(name, times);
    const source = this.sources.get(need.what);
    for (const item of need.what === Asked.CERTIFICATE ? [0] : indexesOf(need.members)) {
      const found = source?.(item) ?? null;
      if (found !== null) await this.pass(sender, found);
    }
  }

  /** A signed message is forwarded as it is, a sum too, and a certificate goes under this peer's own index. */
  private async pass(to: number, found: Received): Promise<void> {
    const { post } = this.state;
    if (BULK.has(found.message.type)) await post.relay(to, found.raw, true);
    else if (SIGNED.has(found.message.type)) await post.send(to, { type: "forward", message: found.raw });
    else await post.send(to, found.message);
  }
}
