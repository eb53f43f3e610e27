/** Keeping up with a run: a node holds its current model, fetches it where it missed rounds, and says so. */

import { short } from "../protocol/bytes.js";
import { LinkError, ProtocolError } from "../protocol/errors.js";
import { modelFrom } from "../secagg/apply.js";
import type { NodeContext } from "./context.js";
import { delay } from "./delay.js";
import { NodeError, SignalingDownError, SignalingRefusedError, StorageError } from "./errors.js";
import { checkEntry } from "./log-checking.js";
import type { Membership } from "./membership.js";

const STALE_TRIES = 5;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const FINAL: ReadonlySet<string> = new Set(["finished", "stopped", "failed"]);

/** Whether a run in this state goes on no more. */
export function isFinal(state: string): boolean {
  return FINAL.has(state);
}

/** At most one piece of work at a time; a wish that comes while it is under way is looked at afterwards. */
export class KeepingUp {
  private isWanted = false;
  private isBusy = false;

  constructor(
    private readonly context: NodeContext,
    private readonly membership: Membership,
    /** Aborted when this node is in the run no more. */
    private readonly over: AbortSignal,
    /** Asked before this node says that it is ready. */
    private readonly mayWork: () => Promise<boolean>,
  ) {}

  /** Soon hold the run's current model and be ready; tried again with pauses until it works. */
  catchUp(): void {
    this.isWanted = true;
    if (this.isBusy) return;
    void this.work();
  }

  private async work(): Promise<void> {
    let pause = FIRST_PAUSE_MS;
    this.isBusy = true;
    while (this.isWanted && !this.over.aborted) {
      this.isWanted = false;
      if (await this.attempt()) {
        pause = FIRST_PAUSE_MS;
        continue;
      }
      // no holder or no signaling now, and nothing need ever happen that would tell of their return
      this.isWanted = true;
      await delay(pause * (0.5 + Math.random() / 2), this.over);
      pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
    }
    this.isBusy = false;
  }

  /** False where another try may help. */
  private async attempt(): Promise<boolean> {
    const { membership, context } = this;
    const { run } = membership.signed;
    try {
      for (let tries = 0; tries < STALE_TRIES && !membership.isAtWork; tries++) {
        try {
          await this.beReady();
          return true;
        } catch (error) {
          if (!(error instanceof SignalingRefusedError && error.code === "stale-model")) throw error;
        }
      }
      return membership.isAtWork; // an attempt's own end comes back here
    } catch (error) {
      if (this.over.aborted) return true;
      if (!(error instanceof ProtocolError || error instanceof NodeError) || error instanceof StorageError) {
        context.report(error, run);
        return true;
      }
      context.hub.tell("behind", { run, round: membership.round, code: error.code, reason: error.message });
      if (error instanceof SignalingDownError) return false;
      return error instanceof SignalingRefusedError && error.code !== "rate-limited";
    }
  }

  private async beReady(): Promise<void> {
    const { membership, context } = this;
    const { run } = membership.signed;
    const { status } = await context.session.request("get_run", { run }, "run_reply");
    membership.hasEnded ||= isFinal(status.state);
    if (isFinal(status.state) && status.round === 0) return;
    if (status.round !== membership.round || status.model_digest !== membership.digest) {
      membership.checkRound(status.round + 1);
      await this.fetch();
    }
    if (isFinal(status.state) || !(await this.mayWork())) return;
    const { round, digest } = membership;
    await context.session.request("ready", { run, round, model_digest: digest }, "done");
    context.hub.tell("ready", { run, round });
  }

  private async fetch(): Promise<void> {
    const { membership, context } = this;
    const { run } = membership.signed;
    const found = await context.switchboard.fetchModel(run, membership.modelBytes);
    await this.checkFetched(found);
    membership.checkRound(found.round + 1);
    if (membership.isAtWork) return; // an attempt's checkpoint is not taken from under it
    await membership.hold(found.round, modelFrom(found.data));
    context.hub.tell("fetched", { run, round: found.round, modelDigest: found.digest });
  }

  /** Believe no signaling server about a model: a quorum's signatures, or the plan's own initial values. */
  private async checkFetched(found: { readonly round: number; readonly digest: string }): Promise<void> {
    const { run, terms } = this.membership.signed;
    if (found.round === 0) {
      if (found.digest === (await this.membership.initialDigest())) return;
      throw new LinkError(`run ${short(run)}: signaling names another initial model than the plan's`);
    }
    const page = await this.context.session.request("log", { run, first: found.round, limit: 1 }, "log_page");
    const entry = page.entries[0];
    if (entry === undefined) throw new LinkError(`run ${short(run)}: signaling has logged no round ${found.round}`);
    await checkEntry(entry, { run, round: found.round, digest: found.digest, terms });
    this.membership.checkDelegates(entry);
  }
}
