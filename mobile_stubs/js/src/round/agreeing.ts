/** The end of R5 (spec 07 §9): t equal signed results end the round. */

import { equalBytes, fromHex, toHex, type Bytes } from "../protocol/bytes.js";
import { sha256 } from "../protocol/crypto.js";
import { RoundFailedError } from "../protocol/errors.js";
import type { Completed } from "./actions.js";
import type { Received, Result } from "./messages.js";
import { agreed, type RoundState } from "./state.js";

/** Results of others, and this peer's own. */
export class Agreeing {
  private readonly results = new Map<number, Received<Result>>();
  private readonly signatures = new Map<number, Bytes>();
  private readonly refused = new Set<number>();
  private own: Result | null = null;

  constructor(private readonly state: RoundState) {}

  /** Peers that sent a result: they say that they hold every sum. */
  get finished(): readonly number[] {
    return [...this.results.keys()].sort((a, b) => a - b);
  }

  /** Keep the first result of a peer; its signature verified when it was decoded. */
  keep(received: Received<Result>): void {
    if (!this.results.has(received.sender)) this.results.set(received.sender, received);
  }

  /** Sign this peer's result and tell everyone. */
  async provide(modelDigest: string, tail: Bytes): Promise<void> {
    const { state } = this;
    const tailDigest = await sha256(tail);
    const own: Result = { type: "result", modelDigest: fromHex(modelDigest), tailDigest, survivors: state.survivors };
    const encoded = await state.post.encode(own);
    this.own = own;
    this.signatures.set(state.ownIndex, encoded.signature);
    await state.post.relayAll(encoded.raw, false);
  }

  /**
   * What completes the round, once t results are equal. Others may lack sums until the deadline, when they ask who holds
   * them: the results come a grace later.
   *
   * @throws RoundFailedError fewer agree by then.
   */
  step(): Completed | null {
    const { own, state } = this;
    const { threshold } = state.parameters;
    if (own === null) return null;
    for (const index of this.finished) {
      if (this.signatures.size >= threshold) break;
      this.count(index, agreed(this.results.get(index), `result of peer ${index}`), own);
    }
    if (this.signatures.size >= threshold) {
      return {
        action: "completed",
        modelDigest: toHex(own.modelDigest),
        survivors: state.survivors,
        tailDigest: own.tailDigest,
        signatures: new Map([...this.signatures].sort(([a], [b]) => a - b)),
      };
    }
    if (!state.isOverdue(1)) return null;
    throw new RoundFailedError(
      `${this.signatures.size} peers agree on the result, expected ${threshold}; ` +
        `peers [${[...this.refused].sort((a, b) => a - b).join(", ")}] report another`,
    );
  }

  private count(index: number, received: Received<Result>, own: Result): void {
    if (this.signatures.has(index) || this.refused.has(index)) return;
    const { modelDigest, tailDigest, survivors } = received.message;
    const isEqual =
      survivors === own.survivors && equalBytes(modelDigest, own.modelDigest) && equalBytes(tailDigest, own.tailDigest);
    if (isEqual) this.signatures.set(index, received.signature);
    else {
      this.refused.add(index);
      this.state.post.report(index, `peer ${index} reports another result`);
    }
  }
}
