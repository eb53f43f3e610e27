/** Leaders and views (spec 07 §11): who leads, when a view ends, and what a new leader passes on. */

import { bitsOf, has, indexesOf } from "../protocol/bits.js";
import { equalBytes } from "../protocol/bytes.js";
import { RoundFailedError } from "../protocol/errors.js";
import { leaderOf } from "../secagg/parameters.js";
import { Decisions } from "./decisions.js";
import { type Certificate, type Decide, isOf, type Message, type Received, type Status, type Vote } from "./messages.js";
import { type RoundState, Stage, stageName } from "./state.js";

/** Graces that a leader has after the stage's deadline, or after its view began if that was later. */
const LEADER_GRACES = 2;

/**
 * The views of one attempt as one peer sees them. `view` counts up from 0. A peer leaves a view when its leader is
 * gone, silent past the deadline or caught breaking a rule, or when so many left it that one of them is honest.
 */
export class Views {
  view = 0;
  leaderDeadline = Infinity;
  readyAt = 0;
  readonly decisions: Decisions;
  certificate: Certificate | null = null;
  vote: Received<Vote> | null = null;

  private readonly statuses = new Map<number, number>();
  private readonly shown = new Map<number, Set<number>>();
  private readonly followers = new Set<number>();
  private readonly holding = new Map<string, Set<number>>();
  private readonly deposed = new Set<number>();
  private told: { leader: number; report: Received } | null = null;

  private constructor(
    private readonly state: RoundState,
    private readonly firstLeader: number,
  ) {
    this.decisions = new Decisions((view) => this.leaderOf(view));
    state.onEnter.push(() => this.restart());
  }

  static async of(state: RoundState): Promise<Views> {
    return new Views(state, await leaderOf(state.t0, 0, state.parameters.size));
  }

  /** Index of the leader of the current view. */
  get leader(): number {
    return this.leaderOf(this.view);
  }

  /** Index of the leader of a view. */
  leaderOf(view: number): number {
    return (this.firstLeader + view) % this.state.parameters.size;
  }

  /** Whether this peer leads and may act: in a later view it first hears what others adopted. */
  leads(): boolean {
    const { state } = this;
    if (this.leader !== state.ownIndex) return false;
    if (this.view === 0 || state.now >= this.readyAt) return true;
    return [...state.post.links].every(([index, link]) => !link.live || (this.statuses.get(index) ?? -1) >= this.view);
  }

  /** A peer showed or passed on a decision: it says that it adopted it, so it holds what the decision is about. */
  noteAdopted(decision: Decide, by: number): void {
    const name = `${decision.kind} ${decision.view}`;
    this.holding.set(name, (this.holding.get(name) ?? new Set<number>()).add(by));
  }

  /** Whom to ask for what a decision is about: who made it, and so many who adopted it that one is honest. */
  holders(decision: Decide): readonly number[] {
    const { size, threshold } = this.state.parameters;
    const adopted = [...(this.holding.get(`${decision.kind} ${decision.view}`) ?? [])];
    const others = adopted.filter((index) => this.state.isLive(index)).slice(0, size - threshold + 1);
    return [this.leaderOf(decision.view), ...others];
  }

  /** Whether a new leader has waited long enough for what others owe it: answers, or the proof of a decision. */
  mayOverrule(): boolean {
    return this.state.now >= this.readyAt + this.state.grace / 2;
  }

  /** The leader of a view made a decision that no honest leader makes: do not wait for it. */
  depose(decision: Decide): void {
    this.deposed.add(decision.view);
  }

  /** Move to later views where the current one has ended. */
  async step(): Promise<void> {
    const { state } = this;
    while (this.leader !== state.ownIndex && this.isViewOver()) await this.next();
    const ahead = [...this.statuses.values()].filter((view) => view > this.view).length;
    if (ahead >= state.parameters.size - state.parameters.threshold + 1) await this.next();
  }

  /**
   * A peer moved to a view; it is owed what this peer adopted and it did not, and from who leads the view more.
   *
   * @throws ProtocolError the status shows something that is no decision, or a decision that breaks a rule.
   */
  async keepStatus(sender: number, status: Status): Promise<void> {
    if (status.view <= (this.statuses.get(sender) ?? 0)) return; // a repeated status earns no second answer
    const decided: Received<Decide>[] = [];
    for (const raw of status.decisions) {
      const inner = await this.state.post.codec.decode(raw, false);
      if (isOf(inner, "decide")) decided.push(inner); // of another type inside the codec refuses a status
    }
    this.statuses.set(sender, status.view);
    const leads = this.leaderOf(status.view) === this.state.ownIndex;
    const shown = this.shown.get(sender) ?? new Set<number>();
    this.shown.set(sender, shown);
    for (const inner of decided) shown.add(inner.message.kind);
    if (leads) this.followers.add(sender);
    for (const inner of decided) {
      this.decisions.keep(inner);
      this.noteAdopted(inner.message, sender);
    }
    for (const adopted of this.decisions.allAdopted()) await this.passOn(sender, adopted.message.kind);
    if (leads && this.certificate !== null) await this.state.post.send(sender, this.certificate);
  }

  /** Adopt a decision and pass it on to those who look to this peer for it. */
  async adopt(received: Received<Decide>): Promise<void> {
    this.decisions.adopt(received);
    if (received.sender === this.state.ownIndex) return;
    for (const follower of indexesOf(bitsOf(this.followers))) await this.passOn(follower, received.message.kind);
  }

  /** The next message of this leader takes one exchange, not a training: wait for it only so long. */
  expectSoon(): void {
    this.leaderDeadline = Math.min(this.leaderDeadline, this.state.now + LEADER_GRACES * this.state.grace);
  }

  /** Whether half of the time that this leader has is over. */
  isLeaderSlow(): boolean {
    return this.state.now >= this.leaderDeadline - this.state.grace;
  }

  /** As leader: whether those who waited for it should have left this view a grace ago, and did not say so. */
  isLeft(): boolean {
    return this.state.now >= this.leaderDeadline + this.state.grace;
  }

  /** Keep the certificate for those who look to this peer for it. */
  async adoptCertificate(certificate: Certificate): Promise<void> {
    this.certificate = certificate;
    for (const follower of indexesOf(bitsOf(this.followers))) await this.state.post.send(follower, certificate);
  }

  /** Send a report to the leader, once for each leader and content. */
  async tellLeader(message: Message): Promise<void> {
    const report = await this.state.post.encode(message);
    if (this.told?.leader === this.leader && equalBytes(this.told.report.raw, report.raw)) return;
    this.told = { leader: this.leader, report };
    if (this.leader === this.state.ownIndex) await this.state.post.onOwn(report);
    else await this.state.post.relay(this.leader, report.raw, false);
  }

  /** Send this peer's one vote, to this leader and to every later one. */
  async cast(vote: Received<Vote>): Promise<void> {
    this.vote = vote;
    this.state.changes++;
    await this.sendVote();
  }

  /** Whether this peer's vote, if it is cast, counts a peer as a survivor. */
  voteIncludes(index: number): boolean {
    return this.vote === null || has(this.vote.message.survivors, index);
  }

  private isViewOver(): boolean {
    return !this.state.isLive(this.leader) || this.state.now >= this.leaderDeadline || this.deposed.has(this.view);
  }

  private async sendVote(): Promise<void> {
    if (this.vote === null) return;
    if (this.leader === this.state.ownIndex) await this.state.post.onOwn(this.vote);
    else await this.state.post.relay(this.leader, this.vote.raw, false);
  }

  private async passOn(follower: number, kind: number): Promise<void> {
    const decision = this.decisions.adopted(kind);
    const shown = this.shown.get(follower);
    if (decision === null || shown === undefined || shown.has(kind)) return;
    shown.add(kind);
    await this.state.post.send(follower, { type: "forward", message: decision.raw });
  }

  private async next(): Promise<void> {
    const { state } = this;
    this.view++;
    state.changes++;
    if (this.view >= state.parameters.size) {
      throw new RoundFailedError(`no leader left in stage ${stageName(state.stage)}`);
    }
    // peers may train for as long as they might under the leader before, unless they have voted already
    const begins = this.vote === null ? Math.max(state.now, state.stageDeadline) : state.now;
    this.leaderDeadline = begins + LEADER_GRACES * state.grace;
    this.readyAt = state.now + state.grace / 2;
    this.told = null;
    const decisions = this.decisions.allAdopted().map((received) => received.raw);
    await state.post.broadcast({ type: "status", view: this.view, decisions }, { toSelf: false });
    await this.sendVote();
  }

  private restart(): void {
    const { state } = this;
    this.leaderDeadline = state.stage >= Stage.AGREE ? Infinity : state.stageDeadline + LEADER_GRACES * state.grace;
    this.told = null;
  }
}
