/**
 * One run this node is in, from consent to its end: rounds one after the other, keeping up between them.
 *
 *     serving --(device rules say no)--> paused --(they say yes)--> serving;   any --(policy, storage, stop)--> over
 *
 * A paused node takes its consent back, so that nobody waits for it, and gives it again by itself.
 */

import { indexesOf } from "../protocol/bits.js";
import { toHex } from "../protocol/bytes.js";
import { ProtocolError } from "../protocol/errors.js";
import type { LogEntry, ServerMessages } from "../protocol/signaling/messages.js";
import { readTail } from "../protocol/tail.js";
import { roundTag } from "../round/codec.js";
import type { RoundParameters } from "../secagg/parameters.js";
import { nameOf } from "./announcement.js";
import { Attempt, type AttemptReport } from "./attempt.js";
import type { NodeContext } from "./context.js";
import type { Objection } from "./device.js";
import type { EarlyMessages } from "./early.js";
import { NodeError, StorageError } from "./errors.js";
import { KeepingUp } from "./keeping-up.js";
import type { Membership } from "./membership.js";
import { judgeCohort, type Verdict } from "./policy.js";

type RoundStart = ServerMessages["round_start"];

const MAX_WAITING_STARTS = 4;
const MAX_SEEN = 64;

/** A node's part in one run while it is in it. */
export class Participation {
  private readonly starts: RoundStart[] = [];
  private readonly seen: string[] = [];
  private readonly over = new AbortController();
  private readonly keepingUp: KeepingUp;
  private lastLogged: LogEntry | null = null;
  private consent: Promise<void> = Promise.resolve();
  private isServing = false;
  private isPaused = false;

  constructor(
    private readonly context: NodeContext,
    readonly membership: Membership,
    private readonly verdict: Verdict,
    private readonly early: EarlyMessages,
  ) {
    this.keepingUp = new KeepingUp(context, membership, this.over.signal, () => this.mayWork());
  }

  private get run(): string {
    return this.membership.signed.run;
  }

  /** Whether this node still serves the run. */
  get isOver(): boolean {
    return this.over.signal.aborted;
  }

  /** Soon hold the run's current model and be ready. */
  catchUp(): void {
    if (!this.isPaused) this.keepingUp.catchUp();
  }

  /** As after a reconnect: consent again, unless the device rules say no for the moment. */
  async offeredAgain(): Promise<void> {
    if (this.isPaused) return;
    await this.context.session.accept({ run: this.run, dataset: this.verdict.dataset });
    this.catchUp();
  }

  /** Signaling named a cohort; an earlier attempt of this run has no future. */
  announce(start: RoundStart): void {
    const current = this.membership.attempts[0];
    const isOther = current !== undefined && current.roundId !== start.round_id;
    if (isOther && !this.membership.goesOnWith(start) && !current.ledTo(start.model_digest)) current.abort("signaling named a later attempt");
    if (this.starts.length >= MAX_WAITING_STARTS) this.starts.shift(); // named and replaced while another was under way
    this.starts.push(start);
    if (!this.isServing) void this.serve();
  }

  /** Signaling closed an attempt. */
  close(aborted: ServerMessages["round_aborted"]): void {
    this.membership.abort(nameOf(aborted), `signaling closed the attempt: ${aborted.reason}`);
  }

  /** Signaling logged a round: get its model if this node missed it. */
  logged(entry: LogEntry): void {
    this.lastLogged = entry;
    const [current] = this.membership.attempts;
    // as after a sleep: the others are in a later round, and nobody is left to finish this one with
    if (current !== undefined && entry.round > current.round) current.abort("a later round was logged");
    this.follow();
  }

  /** Come back to the run after a pause, where the device rules allow it by now. */
  reconsider(): Promise<void> {
    return this.inTurn(async () => {
      if (!this.isPaused || this.isOver || (await this.context.device.whyNotNow()) !== null) return;
      this.isPaused = false;
      await this.context.session.accept({ run: this.run, dataset: this.verdict.dataset });
      this.keepingUp.catchUp();
    });
  }

  /** End this node's part. */
  stop(): void {
    if (this.isOver) return;
    this.over.abort();
    this.membership.close(); // the cohort sees the links go
  }

  private async serve(): Promise<void> {
    this.isServing = true;
    for (let start = this.starts.shift(); start !== undefined && !this.isOver; start = this.starts.shift()) {
      if (this.seen.includes(start.round_id)) continue; // it is sent again when a session reconnects
      this.seen.push(start.round_id);
      if (this.seen.length > MAX_SEEN) this.seen.shift();
      try {
        await this.take(start);
      } catch (error) {
        await this.failed(start, error);
      }
    }
    this.isServing = false;
  }

  private async take(start: RoundStart): Promise<void> {
    const { context, membership } = this;
    await context.switchboard.route(start.round_id, start.members);
    const parameters = await membership.parameters(start);
    // delegates speak for groups; their owners judged those
    const stranger = parameters.combines
      ? null
      : judgeCohort(context.policy, parameters.setting.cohort, context.identity.peerId);
    if (stranger !== null) {
      await this.withdraw(start, { accepted: false, rule: "minKnownPeers", reason: stranger, dataset: this.verdict.dataset });
      return;
    }
    const objection = await context.device.whyNotNow();
    if (objection === null) await this.takePart(start, parameters);
    else await this.pause(objection, start);
  }

  private async takePart(start: RoundStart, parameters: RoundParameters): Promise<void> {
    const { context, membership, run } = this;
    const { round } = start;
    const attempt = await this.prepare(start, parameters);
    membership.begin(attempt, start, parameters);
    context.hub.tell("round", { run, round, attempt: start.attempt, cohort: parameters.setting.cohort });
    for (const { peer, payload } of this.early.take(toHex(roundTag(start.round_id)))) attempt.receive(peer, payload, false);
    const report = await attempt.run();
    if (this.isOver) return;
    if (report.outcome.action === "failed" || (report.model === null && report.total === null)) {
      if (report.error instanceof StorageError) throw report.error;
      const reason = report.outcome.action === "failed" ? report.outcome.reason : "the round gave no model";
      context.report(new NodeError(`round ${round}, attempt ${start.attempt}: ${reason}`, "round-failed"), run);
      await this.reportFailure(start, report.told ?? reason);
      this.catchUp(); // also to be ready anew: signaling may have forgotten it meanwhile
      return;
    }
    if (report.total !== null) membership.holdSum(start, report.total);
    else if (report.model !== null) await membership.hold(round, report.model);
    await this.reportResult(start, report);
    this.follow();
  }

  private prepare(start: RoundStart, parameters: RoundParameters): Promise<Attempt> {
    const { context, membership, run } = this;
    const { round } = start;
    const progress = (stage: string, done: number, total: number) => {
      context.hub.tell("progress", { run, round, stage, done, total });
    };
    return Attempt.create({
      round,
      name: nameOf(start),
      isGroup: start.place?.level === 1,
      parameters,
      identity: context.identity,
      mesh: context.switchboard.mesh,
      deadlines: membership.signed.terms.deadlines,
      checkpoint: membership.model,
      optimizer: membership.signed.terms.server_optimizer,
      parameterCount: membership.plan.sharedCount,
      record: (entry, detail) => context.storage.record(start.round_id, entry, detail),
      contribute: membership.contribution(parameters, (done, total) => progress("train", done, total)),
      onStage: (stage) => progress(stage, 1, 1),
      onRefused: (peer, message) => context.refused(peer, message, run),
    });
  }

  private async reportResult(start: RoundStart, report: AttemptReport): Promise<void> {
    const { outcome, tail } = report;
    if (outcome.action !== "completed") return;
    const { context, membership, run } = this;
    const { round, attempt, place } = start;
    const survivors = indexesOf(outcome.survivors);
    const { milliseconds, bytesSent, bytesReceived } = report;
    const told = { run, round, survivors: survivors.length, milliseconds, bytesSent, bytesReceived };
    const group = report.total === null || place === null ? null : place.group;
    if (group === null) {
      const metrics = readTail(membership.plan.manifest, membership.signed.terms, tail);
      context.hub.tell("result", { ...told, modelDigest: outcome.modelDigest, metrics });
    } else context.hub.tell("group", { ...told, group, sumDigest: outcome.modelDigest });
    const signatures = [...outcome.signatures].map(([index, signature]) => ({ index, signature }));
    const result = { run, round, attempt, model_digest: outcome.modelDigest, survivors, metrics: tail, signatures, place };
    try {
      await context.session.result(result);
    } catch (error) {
      if (!this.isOver) context.report(error, run); // the session says it again once signaling is back
    }
    if (start.combining !== null) return; // what this node gave of its own is in its group's receipt
    const completed = { round, attempt, survivors: survivors.length, model_digest: outcome.modelDigest, group };
    await context.keepReceipt(membership.signed, this.verdict, completed);
  }

  private async failed(start: RoundStart, error: unknown): Promise<void> {
    if (this.isOver) return;
    this.context.report(error, this.run);
    const isExpected = error instanceof ProtocolError || error instanceof NodeError;
    const isStorage = error instanceof StorageError;
    await this.reportFailure(start, isExpected ? error.message : "this node failed");
    if (isExpected && !isStorage) {
      this.catchUp();
      return;
    }
    // a node that cannot write its journal must not go on; nor one in which something happened that nobody foresaw
    await this.leave("storage", isExpected ? error.message : "this node failed");
  }

  private async withdraw(start: RoundStart, verdict: Verdict): Promise<void> {
    await this.context.keepReceipt(this.membership.signed, verdict);
    await this.reportFailure(start, verdict.reason);
    await this.leave(verdict.rule, verdict.reason);
  }

  private async leave(rule: string, reason: string): Promise<void> {
    this.membership.hasEnded = true;
    this.context.hub.tell("withdrawn", { run: this.run, rule, reason });
    this.stop();
    await this.guarded(this.context.session.withdraw(this.run));
  }

  private async pause(objection: Objection, start: RoundStart | null): Promise<void> {
    if (start !== null) await this.reportFailure(start, `not now: ${objection.reason}`);
    await this.inTurn(async () => {
      if (this.isPaused) return;
      this.isPaused = true;
      this.context.hub.tell("waiting", { run: this.run, ...objection });
      await this.context.session.withdraw(this.run);
    });
    await this.reconsider(); // it may have changed while signaling was told
  }

  /** Consent is taken back and given again in the order in which the device changed. */
  private inTurn(change: () => Promise<void>): Promise<void> {
    this.consent = this.consent.then(() => this.guarded(change()));
    return this.consent;
  }

  private async mayWork(): Promise<boolean> {
    const objection = await this.context.device.whyNotNow();
    if (objection !== null) await this.pause(objection, null);
    return objection === null;
  }

  private async reportFailure(start: RoundStart, reason: string): Promise<void> {
    const { run, round, attempt, place } = start;
    const failure = { run, round, attempt, place, reason: reason.slice(0, 1024), missing: [] };
    await this.guarded(this.context.session.request("round_failed", failure, "done"));
  }

  /** A round was logged or an attempt ended. */
  private follow(): void {
    const { lastLogged: entry, membership } = this;
    if (entry === null || membership.isAtWork) return; // an attempt's own end comes back here
    if (entry.round >= membership.round && entry.model_digest !== membership.digest) this.catchUp();
  }

  private async guarded(work: Promise<unknown>): Promise<void> {
    try {
      await work;
    } catch (error) {
      if (!this.context.stopping.aborted) this.context.report(error, this.run);
    }
  }
}
