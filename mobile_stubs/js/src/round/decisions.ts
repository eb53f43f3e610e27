/** Leaders' decisions (spec 07 §3, §11): kept per kind and view, adopted at most once per kind. */

import { equalBytes } from "../protocol/bytes.js";
import type { Bytes } from "../protocol/bytes.js";
import { MessageError } from "../protocol/errors.js";
import type { Decide, Received } from "./messages.js";
import { sameBody } from "./same.js";

/** At most one decision of each kind is kept per view, so a later leader cannot take another's place. */
export class Decisions {
  private readonly kept = new Map<number, Map<number, Received<Decide>>>();
  private readonly fixed = new Map<number, Received<Decide>>();

  constructor(private readonly leaderOf: (view: number) => number) {}

  /**
   * Keep a decision until its stage and view are reached.
   *
   * @throws MessageError the sender does not lead that view, or decided twice in it.
   */
  keep(received: Received<Decide>): void {
    const { kind, view } = received.message;
    if (received.sender !== this.leaderOf(view)) {
      throw new MessageError(`peer ${received.sender} decided in view ${view} but does not lead it`);
    }
    const ofKind = this.ofKind(kind);
    const known = ofKind.get(view);
    if (known === undefined) ofKind.set(view, received);
    else if (!sameBody(known, received)) {
      throw new MessageError(`peer ${received.sender} made two different decisions in view ${view}`);
    }
  }

  /** Decisions on the right base, of views up to `view`, earliest first. */
  candidates(kind: number, base: Bytes, view: number): Received<Decide>[] {
    return this.byView(kind).filter(({ message }) => message.view <= view && equalBytes(message.base, base));
  }

  /** Decisions on another base than the one adopted, taken out: they can never become valid. */
  strays(kind: number, base: Bytes): Received<Decide>[] {
    const found = this.byView(kind).filter(({ message }) => !equalBytes(message.base, base));
    for (const received of found) this.reject(received);
    return found;
  }

  /** Take out a decision that broke a rule. */
  reject(received: Received<Decide>): void {
    this.ofKind(received.message.kind).delete(received.message.view);
  }

  /** Fix the decision of its kind for the whole attempt. */
  adopt(received: Received<Decide>): void {
    if (!this.fixed.has(received.message.kind)) this.fixed.set(received.message.kind, received);
  }

  /** The adopted decision of a kind. */
  adopted(kind: number): Received<Decide> | null {
    return this.fixed.get(kind) ?? null;
  }

  /** Every adopted decision, in the order of adoption. */
  allAdopted(): readonly Received<Decide>[] {
    return [...this.fixed.values()];
  }

  private ofKind(kind: number): Map<number, Received<Decide>> {
    let found = this.kept.get(kind);
    if (found === undefined) this.kept.set(kind, (found = new Map()));
    return found;
  }

  private byView(kind: number): Received<Decide>[] {
    return [...this.ofKind(kind).values()].sort((a, b) => a.message.view - b.message.view);
  }
}
