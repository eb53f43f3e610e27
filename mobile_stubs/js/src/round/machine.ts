/**
 * The p2psa/1 machine of one peer in one attempt (spec 07): bytes, time and finished work in, actions out.
 *
 *     ADVERTISE --roster--> SHARE --mask set--> COLLECT --certificate--> UNMASK --all secrets--> SUM --all sums-->
 *     AGREE --t equal results--> DONE;   any stage --deadline, too few peers, a refused sum--> FAILED
 *
 * Handlers of messages only check and keep; `advance` makes every transition that what is kept allows. The order in
 * which messages arrive therefore does not matter, and a message for a later stage waits where it is kept. WebCrypto
 * is asynchronous, so every input is, and inputs are taken one after the other, whoever calls.
 */

import { type Bits, bit, count, NONE } from "../protocol/bits.js";
import type { Bytes } from "../protocol/bytes.js";
import { MessageError, ProtocolError, RoundFailedError } from "../protocol/errors.js";
import type { Contribution } from "../secagg/combining.js";
import type { Action, Outcome } from "./actions.js";
import { Advertising } from "./advertising.js";
import { Agreeing } from "./agreeing.js";
import { Collecting } from "./collecting.js";
import { Asked, type Certificate, type Decide, Decision, isOf, type Received, SIGNED } from "./messages.js";
import { Requests } from "./requests.js";
import { Sharing } from "./sharing.js";
import { agreed, type AttemptOptions, RoundState, Stage } from "./state.js";
import { Summing } from "./summing.js";
import { Unmasking } from "./unmasking.js";
import { Views } from "./views.js";
import { Voting } from "./voting.js";

type Judge = (decided: Decide, sender: number) => boolean | Promise<boolean>;

const NO_ROOT = new Uint8Array(32);
const SET_NAMES: Readonly<Record<number, string>> = { 1: "roster", 2: "mask set", 3: "survivor set" };
const ENDED: ReadonlySet<Stage> = new Set([Stage.DONE, Stage.FAILED]);

/**
 * One peer's part in one attempt at a round, in every role: participant, chunk owner and leader.
 *
 * Every input gives the actions to do now, in order; call `tick` no later than `nextDeadline`. Times are milliseconds
 * of one monotonic clock. No bytes from a peer make it throw.
 */
export class RoundMachine {
  private turn: Promise<unknown> = Promise.resolve();
  private started = false;
  private readonly requests: Requests;
  private readonly advertising: Advertising;
  private readonly sharing: Sharing;
  private readonly collecting: Collecting;
  private readonly voting: Voting;
  private readonly unmasking: Unmasking;
  private readonly summing: Summing;
  private readonly agreeing: Agreeing;

  private constructor(
    private readonly state: RoundState,
    private readonly views: Views,
  ) {
    state.post.onOwn = (received) => this.keep(received, state.ownIndex, false);
    this.requests = new Requests(state);
    this.advertising = new Advertising(state, views, this.requests);
    this.sharing = new Sharing(state, this.advertising);
    this.collecting = new Collecting(state, views, this.advertising);
    this.voting = new Voting(state, views, this.collecting, this.requests);
    this.unmasking = new Unmasking(state, this.advertising, this.sharing);
    this.summing = new Summing(state, this.advertising, this.collecting, this.requests);
    this.agreeing = new Agreeing(state);
    this.requests.offer(Asked.ADVERTS, (index) => this.advertising.forwardable(index));
    this.requests.offer(Asked.COMMITS, (index) => this.collecting.store.commitOf(index));
    this.requests.offer(Asked.SUMS, (chunk) => this.summing.forwardable(chunk));
    this.requests.offer(Asked.CERTIFICATE, () => this.voting.certificate);
  }

  /**
   * Prepare; nothing is sent before `start`.
   *
   * @throws RoundError the randomness has another length, or the identity is not in the cohort.
   */
  static async create(options: AttemptOptions): Promise<RoundMachine> {
    const state = await RoundState.create(options);
    return new RoundMachine(state, await Views.of(state));
  }

  // What comes in.

  /** Begin: record the attempt, advertise. */
  start(now: number): Promise<readonly Action[]> {
    return this.input(now, async () => {
      const { state } = this;
      if (this.started || state.stage === Stage.FAILED) return;
      this.started = true;
      state.beginClock();
      state.post.persist("joined", "");
      state.enter(Stage.ADVERTISE, state.options.deadlines.advertise_ms);
      await this.advertising.begin();
    });
  }

  /** A link to a peer is open; `fingerprint` is the SHA-256 of the certificate its DTLS session shows. */
  linkUp(index: number, fingerprint: Bytes, now: number): Promise<readonly Action[]> {
    return this.input(now, async () => {
      this.state.post.link(index).fingerprint = fingerprint;
      if (this.advertising.checkLink(index)) await this.state.post.open(index, fingerprint);
      else this.state.post.close(index);
    });
  }

  /** The link to a peer is gone. */
  linkDown(index: number, now: number): Promise<readonly Action[]> {
    return this.input(now, async () => this.state.post.close(index));
  }

  /** A round message came over the link to a peer. */
  receive(index: number, data: Bytes, bulk: boolean, now: number): Promise<readonly Action[]> {
    return this.input(now, async () => {
      if (this.stage === Stage.FAILED || !this.advertising.checkLink(index)) return;
      try {
        await this.keep(await this.state.post.codec.decode(data, bulk), index, false);
      } catch (error) {
        if (error instanceof RoundFailedError || !(error instanceof ProtocolError)) throw error;
        this.state.post.report(index, error.message);
      }
    });
  }

  /** The local update, or where groups' sums are combined that of this delegate's group, is ready; it is used once. */
  provideUpdate(update: Contribution, now: number): Promise<readonly Action[]> {
    return this.input(now, async () => {
      if (this.stage <= Stage.COLLECT) this.collecting.update = update;
    });
  }

  /** The outcome of a `work` action: what its job gave, or the RoundError it raised. */
  finishWork(number: number, outcome: Outcome, now: number): Promise<readonly Action[]> {
    return this.input(now, async () => {
      const then = this.state.takeWork(number);
      if ("error" in outcome) throw new RoundFailedError(outcome.error.message);
      if (!ENDED.has(this.stage)) await then(outcome.value);
    });
  }

  /** The aggregate was applied: digest of the next model in hexadecimal, and the tail's bytes. */
  provideResult(modelDigest: string, tail: Bytes, now: number): Promise<readonly Action[]> {
    return this.input(now, async () => {
      if (this.stage === Stage.AGREE) await this.agreeing.provide(modelDigest, tail);
    });
  }

  /** Time passed. */
  tick(now: number): Promise<readonly Action[]> {
    return this.input(now, async () => {});
  }

  /** End the attempt from outside; others are told. */
  fail(reason: string, now: number): Promise<readonly Action[]> {
    return this.input(now, () => this.giveUp(reason));
  }

  // What goes out.

  /** When `tick` is due at the latest; null before the start and once the attempt has ended. */
  nextDeadline(): number | null {
    const { state, views } = this;
    if (!this.started || ENDED.has(this.stage)) return null;
    const marks = [
      state.stageDeadline,
      state.stageDeadline + state.grace,
      views.leaderDeadline - state.grace,
      views.leaderDeadline,
      views.leaderDeadline + state.grace,
      views.readyAt,
      views.readyAt + state.grace / 2,
      views.readyAt + state.grace,
    ];
    return Math.min(state.end, ...marks.filter((mark) => mark > state.now));
  }

  /** This peer's index in the cohort. */
  get ownIndex(): number {
    return this.state.ownIndex;
  }

  /** Where this peer stands. */
  get stage(): Stage {
    return this.state.stage;
  }

  /** Number of the current view. */
  get view(): number {
    return this.views.view;
  }

  /** Index of the leader of the current view. */
  get leader(): number {
    return this.views.leader;
  }

  /** The certified survivor set; empty before the certificate. */
  get survivors(): Bits {
    return this.state.survivors;
  }

  toJSON(): string {
    return `RoundMachine(peer=${this.ownIndex}, stage=${this.stage}, view=${this.view})`;
  }

  private input(now: number, take: () => Promise<void>): Promise<readonly Action[]> {
    const turn = this.turn.then(async () => {
      this.state.now = Math.max(now, this.state.now);
      try {
        await take();
        await this.advance();
      } catch (error) {
        if (!(error instanceof RoundFailedError)) throw error;
        await this.giveUp(error.message);
      }
      const { actions } = this.state.post;
      this.state.post.actions = [];
      return actions;
    });
    this.turn = turn.catch(() => undefined); // whoever made the input sees what went wrong with it
    return turn;
  }

  private async giveUp(reason: string): Promise<void> {
    if (ENDED.has(this.stage)) return;
    await this.state.post.broadcast({ type: "abort", reason: 1 }, { toSelf: false });
    this.state.stage = Stage.FAILED;
    this.state.post.actions.push({ action: "failed", reason });
    this.forget();
  }

  // Messages: checks that need no later stage, then storage.

  private async keep(received: Received, via: number, forwarded: boolean): Promise<void> {
    const { sender } = received;
    if (sender !== via && !forwarded && received.message.type !== "sum") {
      throw new MessageError(`peer ${via} sent a message in the name of peer ${sender}`); // sums carry their signature
    }
    if (this.stage === Stage.DONE && !["need", "status", "reveal"].includes(received.message.type)) {
      return; // this peer only helps others to the end
    }
    if (isOf(received, "advert")) await this.advertising.keep(received, via);
    else if (isOf(received, "decide")) this.views.decisions.keep(received);
    else if (isOf(received, "share")) this.sharing.keepBox(sender, received.message.box);
    else if (isOf(received, "ack")) this.sharing.keepAck(sender, received.message);
    else if (isOf(received, "commit")) {
      const isAnswer = forwarded && this.views.vote === null && this.requests.asked(via, Asked.COMMITS);
      await this.collecting.keepCommit(received, isAnswer);
    } else if (isOf(received, "have")) this.collecting.keepHave(received);
    else if (isOf(received, "vote")) this.voting.keepVote(received);
    else if (isOf(received, "certificate")) await this.voting.keepCertificate(received);
    else if (isOf(received, "reveal")) await this.unmasking.keep(received);
    else if (isOf(received, "result")) this.agreeing.keep(received);
    else if (isOf(received, "status")) await this.views.keepStatus(sender, received.message);
    else if (isOf(received, "forward")) await this.keepForwarded(received.message.message, via);
    else if (isOf(received, "need")) await this.requests.answer(sender, received.message);
    else if (isOf(received, "assign")) this.collecting.keepAssignment(received);
    else if (isOf(received, "abort")) this.state.post.link(sender).left = true;
    else if (isOf(received, "chunk")) await this.collecting.keepChunk(received);
    else if (isOf(received, "sum")) await this.summing.keep(received);
  }

  private async keepForwarded(raw: Bytes, via: number): Promise<void> {
    const inner = await this.state.post.codec.decode(raw, false);
    if (!SIGNED.has(inner.message.type)) {
      throw new MessageError(`peer ${via} forwarded a ${inner.message.type}`);
    }
    if (inner.sender === this.ownIndex) return;
    await this.keep(inner, via, true);
    if (isOf(inner, "decide")) this.views.noteAdopted(inner.message, via);
  }

  // Transitions.

  private async advance(): Promise<void> {
    const { state } = this;
    while (this.started && !ENDED.has(this.stage)) {
      state.checkEnd();
      const before = state.changes;
      await this.views.step();
      await this.step();
      if (state.changes === before) return;
    }
  }

  private async step(): Promise<void> {
    switch (this.stage) {
      case Stage.ADVERTISE:
        return this.stepAdvertise();
      case Stage.SHARE:
        return this.stepShare();
      case Stage.COLLECT:
        return this.stepCollect();
      case Stage.UNMASK:
        return this.stepUnmask();
      case Stage.SUM:
        return this.stepSum();
      case Stage.AGREE:
        return this.stepAgree();
      case Stage.DONE:
      case Stage.FAILED:
        return;
    }
  }

  private async stepAdvertise(): Promise<void> {
    const { state, advertising } = this;
    const decided = await this.decided(Decision.ROSTER, state.t0, (d, sender) => advertising.judge(d, sender));
    if (decided !== null) {
      state.roster = decided.members;
      state.t1 = decided.root;
      state.post.audience = state.roster;
      state.enter(Stage.SHARE, state.options.deadlines.share_ms);
      await this.sharing.begin();
    } else if (this.mayDecide(Decision.ROSTER, state.t0)) {
      const have = advertising.have();
      const isComplete = [...state.post.links].every(([index, link]) => !link.live || (have & bit(index)) !== NONE);
      if (!state.isOverdue() && !isComplete) return;
      const roster = advertising.propose();
      await this.decide(Decision.ROSTER, state.t0, roster, await advertising.digest(roster));
    }
  }

  private async stepShare(): Promise<void> {
    const { state, sharing } = this;
    const t1 = agreed(state.t1, "roster");
    await sharing.openBoxes();
    const decided = await this.decided(Decision.MASKED, t1, (d, sender) => sharing.judge(d, sender));
    if (decided !== null) {
      await state.adoptMaskSet(decided.members);
      await this.collecting.begin();
      state.enter(Stage.COLLECT, state.options.deadlines.train_ms + state.options.deadlines.commit_ms);
      await this.voting.begin();
      return;
    }
    const ack = sharing.ack(this.view);
    if (ack !== null) await this.views.tellLeader(ack);
    if (!this.mayDecide(Decision.MASKED, t1)) return;
    const maskSet = sharing.propose(this.view > 0, this.views.mayOverrule());
    if (maskSet !== null) await this.decide(Decision.MASKED, t1, maskSet, NO_ROOT);
  }

  private async stepCollect(): Promise<void> {
    const { state, voting } = this;
    const t2 = agreed(state.t2, "mask set");
    await this.collecting.takeAssignments();
    if (voting.certificate !== null) {
      await this.adoptCertificate(voting.certificate.message);
      return;
    }
    this.collecting.startMasking();
    const decided = await this.decided(Decision.SURVIVORS, t2, (d, sender) => voting.judge(d, sender));
    if (decided !== null) {
      await voting.vote(decided);
      if (this.views.leads()) await voting.gather(decided);
    } else {
      await this.collecting.report();
      if (this.mayDecide(Decision.SURVIVORS, t2)) await this.decideSurvivors(t2);
    }
    if (this.view > 0 || state.isOverdue() || this.views.isLeaderSlow()) await this.askForCertificate();
  }

  private async decideSurvivors(t2: Bytes): Promise<void> {
    const survivors = await this.collecting.propose();
    if (survivors === null) return;
    const root = agreed(await this.collecting.root(survivors), "commit of a survivor"); // chosen among those held
    await this.decide(Decision.SURVIVORS, t2, survivors, root);
  }

  /** Who reveals holds the certificate that did not reach this peer, and waits two graces for those who lack it. */
  private async askForCertificate(): Promise<void> {
    for (const revealer of this.unmasking.revealers) {
      if (this.state.isLive(revealer)) await this.requests.need(revealer, Asked.CERTIFICATE, NONE);
    }
  }

  private async adoptCertificate(certificate: Certificate): Promise<void> {
    this.collecting.update = null; // what was not masked by now is thrown away
    await this.views.adoptCertificate(certificate);
    this.state.enter(Stage.UNMASK, this.state.options.deadlines.unmask_ms);
    await this.unmasking.begin(certificate);
  }

  private async stepUnmask(): Promise<void> {
    await this.collecting.takeAssignments();
    const isKnown = await this.unmasking.step(agreed(this.unmasking.book, "certificate"));
    if (isKnown) this.state.enter(Stage.SUM, this.state.options.deadlines.sum_ms);
  }

  private async stepSum(): Promise<void> {
    const { summing } = this;
    const t3 = agreed(this.state.t3, "survivor set");
    await this.collecting.takeAssignments();
    await summing.takeEarly();
    summing.sumOwned(agreed(this.unmasking.book, "certificate"));
    const lost = await this.decided(Decision.LOST, t3, (d, sender) => summing.judgeLost(d, sender));
    if (lost !== null) summing.giveUp(lost);
    const absent = summing.absent();
    if (absent.length === 0) {
      summing.finish();
      return;
    }
    if (this.state.isOverdue()) await summing.ask(absent, this.agreeing.finished);
    if (lost === null && this.mayDecide(Decision.LOST, t3)) {
      const hopeless = await summing.rescue(absent, this.view);
      if (hopeless !== null) await this.decide(Decision.LOST, t3, hopeless, NO_ROOT);
    }
  }

  private stepAgree(): void {
    const completed = this.agreeing.step();
    if (completed === null) return;
    this.state.stage = Stage.DONE;
    this.state.post.actions.push({ action: "stage", stage: "done" }, completed);
    this.forget();
  }

  // Decisions.

  /** The decision of a kind, adopted on the first call that finds an acceptable one. */
  private async decided(kind: number, base: Bytes, judge: Judge): Promise<Decide | null> {
    const { decisions } = this.views;
    for (const stray of decisions.strays(kind, base)) {
      this.state.post.report(stray.sender, "decided on another round, roster or mask set than this peer holds");
    }
    const adopted = decisions.adopted(kind);
    if (adopted !== null) return adopted.message;
    for (const received of decisions.candidates(kind, base, this.view)) {
      try {
        if (!(await judge(received.message, received.sender))) continue;
        await this.views.adopt(received);
        return received.message;
      } catch (error) {
        if (!(error instanceof MessageError)) throw error;
        this.state.post.report(received.sender, error.message);
        decisions.reject(received);
        this.views.depose(received.message);
        this.state.changes++;
      }
    }
    return null;
  }

  /** Whether this peer leads and no earlier decision may still turn out to be valid. */
  private mayDecide(kind: number, base: Bytes): boolean {
    if (!this.views.leads()) return false;
    return this.views.decisions.candidates(kind, base, this.view).length === 0 || this.views.mayOverrule();
  }

  private async decide(kind: number, base: Bytes, members: Bits, root: Bytes): Promise<void> {
    const { parameters } = this.state;
    if (kind !== Decision.LOST && !parameters.isLargeEnough(members)) {
      throw new RoundFailedError(
        `only ${count(members)} peers for the ${SET_NAMES[kind]}, expected at least ${parameters.quorum}`,
      );
    }
    await this.state.post.broadcast({ type: "decide", kind, view: this.view, base, members, root });
    this.state.changes++;
  }

  private forget(): void {
    this.state.forgetSecrets();
    this.advertising.forgetSecrets();
    this.collecting.update = null;
  }
}
