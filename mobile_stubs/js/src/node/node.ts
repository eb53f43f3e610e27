/** The node: answers offers by its owner's policy, takes part in rounds, serves models (spec 06). */

import type { Dataset } from "../plans/data.js";
import { schemaOf } from "../plans/data.js";
import { Plan } from "../plans/plan.js";
import { type Bytes, fromHex, short, toHex } from "../protocol/bytes.js";
import { randomBytes } from "../protocol/crypto.js";
import { checkEnvelope, type Opened, PLAN_TYPE, RUN_TYPE } from "../protocol/envelope.js";
import { LinkError, ProtocolError } from "../protocol/errors.js";
import type { Identity, PeerId } from "../protocol/identity.js";
import { decodeManifest, type PlanManifest } from "../protocol/manifest.js";
import { signSealingKey } from "../protocol/signaling/handshake.js";
import type { ServerMessages } from "../protocol/signaling/messages.js";
import { readTail } from "../protocol/tail.js";
import { decodeTerms } from "../protocol/terms.js";
import { indexesOf } from "../protocol/bits.js";
import { roundTag } from "../round/codec.js";
import { modelFrom } from "../secagg/apply.js";
import { Attempt, type AttemptReport } from "./attempt.js";
import { NodeError, SignalingDownError, SignalingRefusedError } from "./errors.js";
import { EventHub, type NodeEvent, type NodeEventName, type NodeEvents } from "./events.js";
import { checkEntry } from "./log-checking.js";
import { Membership, type SignedRun } from "./membership.js";
import type { IceServer, Platform, Tensor } from "./platform.js";
import { CAREFUL, decide, type Policy, type Verdict } from "./policy.js";
import { Session, type SessionEvent } from "./session.js";
import { Switchboard } from "./switchboard.js";
import { Trainer } from "./trainer.js";

const MAX_EARLY_MESSAGES = 256;
const MAX_EARLY_ROUNDS = 8;
const CATCH_UP_TRIES = 5;
const FINAL = ["finished", "stopped", "failed"];

/** How a node is made. */
export interface NodeOptions {
  readonly identity: Identity;
  readonly platform: Platform;
  /** What the owner allows; what is left out is careful, and without `authors` nothing is accepted. */
  readonly policy?: Partial<Policy>;
  readonly datasets: readonly Dataset[];
  /** Wait for `join` after each offer, also where the policy would accept. Off by default. */
  readonly ask?: boolean;
  readonly iceServers?: readonly IceServer[];
  /** Peer id of the signaling server to pin; without it TLS alone is trusted. */
  readonly expectedServer?: PeerId;
  /** Stops the node. */
  readonly signal?: AbortSignal;
}

interface OpenOffer {
  readonly signed: SignedRun;
  readonly plan: Opened;
  readonly manifest: PlanManifest;
  readonly verdict: Verdict;
}

/** A peer of private machine learning on an open session. */
export class Node {
  private readonly hub = new EventHub();
  private readonly policy: Policy;
  private readonly offers = new Map<string, OpenOffer>();
  private readonly memberships = new Map<string, Membership>();
  private readonly logged = new Map<string, ServerMessages["round_logged"]["entry"]>();
  private readonly early = new Map<string, { peer: PeerId; payload: Bytes }[]>();
  private readonly seed = randomBytes(32);
  private session!: Session;
  private switchboard!: Switchboard;
  private isStopped = false;
  private order: Promise<void> = Promise.resolve();

  protected constructor(private readonly options: NodeOptions) {
    this.policy = { ...CAREFUL, ...options.policy };
  }

  /**
   * Connect to a signaling server and register as a node with these datasets.
   *
   * @throws NodeError signaling is down, refuses, or is not to be trusted; or a dataset is unusable.
   */
  static async connect(url: string, options: NodeOptions): Promise<Node> {
    const node = new Node(options);
    await node.open(url);
    return node;
  }

  /** This peer. */
  get peerId(): PeerId {
    return this.options.identity.peerId;
  }

  /** Call `listener` for each event of a name. */
  on<K extends NodeEventName>(name: K, listener: (event: NodeEvents[K]) => void): this {
    this.hub.on(name, listener);
    return this;
  }

  /** Undo `on`. */
  off<K extends NodeEventName>(name: K, listener: (event: NodeEvents[K]) => void): this {
    this.hub.off(name, listener);
    return this;
  }

  /** Events from now on, in order. */
  events(signal?: AbortSignal): AsyncGenerator<NodeEvent, void, void> {
    return this.hub.events(signal);
  }

  /**
   * Take part in an offered run.
   *
   * @throws NodeError it was not offered, or the owner's policy refuses it.
   */
  async join(run: string): Promise<void> {
    const offer = this.offers.get(run);
    if (offer === undefined) throw new NodeError(`run ${short(run)} was not offered to this node`, "unknown-run");
    const { signed, verdict } = offer;
    if (!verdict.accepted || verdict.dataset === null) throw new NodeError(`run ${short(run)}: ${verdict.reason}`, "declined");
    this.offers.delete(run); // a second `join` meanwhile finds nothing
    const dataset = this.options.datasets.find((candidate) => candidate.name === verdict.dataset) as Dataset;
    let membership: Membership;
    try {
      membership = await this.enter(offer, dataset);
    } catch (error) {
      this.offers.set(run, offer);
      throw error;
    }
    this.memberships.set(run, membership);
    this.switchboard.mesh.setBulkLimit(Math.max(...[...this.memberships.values()].map((item) => item.bulkLimit)));
    this.hub.tell("joined", { run, runName: signed.terms.name, dataset: dataset.name });
    await this.session.accept({ run, dataset: dataset.name });
    await this.catchUp(membership);
  }

  private async enter({ signed, plan: opened }: OpenOffer, dataset: Dataset): Promise<Membership> {
    const plan = await Plan.load(opened, (digest, size) => this.session.blob(digest, size));
    const { runtime, storage } = this.options.platform;
    const trainer = new Trainer(plan, signed.terms, dataset, runtime, this.seed);
    return Membership.restore(signed, plan, trainer, storage);
  }

  /** Turn an offered run down. */
  async decline(run: string, reason = ""): Promise<void> {
    this.offers.delete(run);
    await this.session.request("decline", { run, reason: reason.slice(0, 1024) }, "done");
  }

  /** Take no further part in a run. */
  async leave(run: string): Promise<void> {
    await this.session.withdraw(run);
    this.memberships.get(run)?.close();
    this.memberships.delete(run);
  }

  /** The model this node holds of a run: rounds it went through, and its digest. */
  holds(run: string): { round: number; modelDigest: string; model: Float32Array } | null {
    const found = this.memberships.get(run);
    return found === undefined ? null : { round: found.round, modelDigest: found.digest, model: found.model.slice() };
  }

  /**
   * Outputs of the model this node holds for inputs of its owner, on this device.
   *
   * @throws NodeError the node is not in that run, or the plan cannot predict.
   */
  predict(run: string, inputs: Readonly<Record<string, Tensor>>): Promise<Tensor> {
    const found = this.memberships.get(run);
    if (found === undefined) return Promise.reject(new NodeError(`this node is not in run ${short(run)}`, "unknown-run"));
    return found.trainer.predict(found.model, inputs);
  }

  /** Leave everything after telling the others. */
  stop(): void {
    if (this.isStopped) return;
    this.isStopped = true;
    for (const membership of this.memberships.values()) membership.close();
    this.switchboard.close("the node is stopping");
    this.session.close();
    this.hub.close();
  }

  private async open(url: string): Promise<void> {
    const { identity, platform, datasets, iceServers = [], expectedServer, signal } = this.options;
    signal?.throwIfAborted();
    const schemas = datasets.map((dataset) => schemaOf(dataset, this.policy.shareExampleCounts));
    this.switchboard = await Switchboard.create(identity, await platform.createRtc(), iceServers, {
      onRoundMessage: (peer, payload, bulk) => this.onRoundMessage(peer, payload, bulk),
      onLink: (peer, up) => this.attempts().forEach((attempt) => attempt.linkChanged(peer, up)),
      onUnreachable: (peer) => this.attempts().forEach((attempt) => attempt.peerGone(peer)),
      onRefused: (peer, message) => this.hub.tell("error", { code: "refused", message, run: null, peer }),
      lookupModel: async (run, round, digest) =>
        this.policy.serveModels ? ((await this.memberships.get(run)?.lookup(round, digest)) ?? null) : null,
    });
    try {
      this.session = await Session.open({
        url,
        identity,
        openSocket: (where) => platform.openSocket(where),
        onEvent: (event) => this.onEvent(event),
        ...(expectedServer === undefined ? {} : { expectedServer }),
      });
      this.switchboard.attach(this.session);
      await this.session.register({
        datasets: schemas,
        sealing_key: this.switchboard.sealingKey,
        sealing_signature: await signSealingKey(identity, this.switchboard.sealingKey),
        max_runs: 4,
      });
    } catch (error) {
      this.switchboard.close("no session");
      throw error;
    }
    signal?.addEventListener("abort", () => this.stop(), { once: true });
  }

  // Events of the session, in the order they came.

  private onEvent(event: SessionEvent): void {
    if (event.type === "relayed" || event.type === "introduced" || event.type === "relay_failed") {
      this.order = this.order.then(() => this.guard(this.switchboard.handle(event), null));
      return;
    }
    switch (event.type) {
      case "offer":
        this.spawn(this.consider(event), event.run);
        break;
      case "round_start":
        this.order = this.order.then(() => this.guard(this.switchboard.route(event.round_id, event.members), event.run));
        this.spawn(this.order.then(() => this.takePart(event)), event.run);
        break;
      case "round_aborted":
        this.current(event.run, event.round)?.abort(`signaling closed the attempt: ${event.reason}`);
        break;
      case "round_logged":
        this.logged.set(event.entry.run, event.entry);
        this.spawn(this.follow(event.entry.run), event.entry.run);
        break;
      case "run_changed":
        if (FINAL.includes(event.status.state) && this.memberships.has(event.status.run)) {
          const { run, state, reason } = event.status;
          this.hub.tell("ended", { run, state, reason });
        }
        break;
      case "peer_gone":
        for (const attempt of this.memberships.get(event.run)?.attempts ?? []) attempt.peerGone(event.peer);
        break;
      case "disconnected":
        this.report(new NodeError(`signaling is away: ${event.reason}`, "signaling-down"), null);
        break;
      case "reconnected":
        for (const membership of this.memberships.values()) this.spawn(this.catchUp(membership), membership.signed.run);
        break;
      case "ended":
        if (event.error !== null) this.report(event.error, null);
        this.stop();
        break;
    }
  }

  // Offers.

  private async consider(offer: ServerMessages["offer"]): Promise<void> {
    const { run } = offer;
    const known = this.memberships.get(run);
    if (known !== undefined) {
      await this.session.accept({ run, dataset: null });
      await this.catchUp(known);
      return;
    }
    try {
      const open = await this.openOffer(offer);
      this.offers.set(run, open);
      const { signed, manifest, verdict } = open;
      this.hub.tell("offer", { run, author: signed.author, manifest, terms: signed.terms, verdict });
      if (!verdict.accepted) await this.decline(run, verdict.reason);
      else if (this.options.ask !== true) await this.join(run);
    } catch (error) {
      if (!(error instanceof ProtocolError || error instanceof NodeError)) throw error;
      this.report(error, run);
      // an offer that was caught by a lost connection stays open for `join`
      if (!(error instanceof SignalingDownError)) await this.decline(run, error.message);
    }
  }

  /** Terms and plan as signed, after checking that they belong together. */
  private async openOffer(offer: ServerMessages["offer"]): Promise<OpenOffer> {
    const run = await checkEnvelope(offer.envelope, RUN_TYPE, "run terms");
    const plan = await checkEnvelope(offer.plan_envelope, PLAN_TYPE, "plan");
    const terms = decodeTerms(run.payload);
    if (run.digest !== offer.run || terms.plan !== plan.digest || run.signer !== plan.signer) {
      throw new ProtocolError(
        `offer ${short(offer.run)}: signaling sent terms ${short(run.digest)} by ${short(run.signer)} with plan ` +
          `${short(plan.digest)} by ${short(plan.signer)}; they do not belong together`,
      );
    }
    const manifest = decodeManifest(plan.payload);
    const schemas = this.options.datasets.map((dataset) => schemaOf(dataset, false));
    const verdict = decide(this.policy, terms, run.signer, manifest, schemas);
    return { signed: { run: run.digest, author: run.signer, terms }, plan, manifest, verdict };
  }

  // Rounds.

  private async takePart(start: ServerMessages["round_start"]): Promise<void> {
    const membership = this.memberships.get(start.run);
    if (this.isStopped || membership?.isNew(start.round_id) !== true) return;
    let attempt: Attempt;
    try {
      attempt = await this.prepare(membership, start);
    } catch (error) {
      if (!(error instanceof ProtocolError || error instanceof NodeError)) throw error;
      if (this.isStopped) return;
      this.report(error, start.run);
      await this.reportFailure(start, error.message);
      await this.catchUp(membership);
      return;
    }
    const { run, round } = start;
    this.hub.tell("round", { run, round, attempt: start.attempt, cohort: start.members.map((member) => member.peer) });
    const tag = toHex(roundTag(start.round_id));
    for (const { peer, payload } of this.early.get(tag) ?? []) attempt.receive(peer, payload, false);
    this.early.delete(tag);
    const report = await attempt.run();
    if (this.isStopped) return;
    if (report.model === null || report.outcome.action === "failed") {
      const reason = report.outcome.action === "failed" ? report.outcome.reason : "the round gave no model";
      this.report(new NodeError(`round ${round}, attempt ${start.attempt}: ${reason}`, "round-failed"), run);
      await this.reportFailure(start, reason);
      await this.follow(run);
      return;
    }
    await membership.hold(round, report.model);
    await this.reportResult(membership, start, report);
  }

  private async prepare(membership: Membership, start: ServerMessages["round_start"]): Promise<Attempt> {
    const { run, round } = start;
    const { identity, platform } = this.options;
    const checkpoint = membership.model;
    const progress = (stage: string, done: number, total: number) =>
      this.hub.tell("progress", { run, round, stage, done, total });
    const attempt = await Attempt.create({
      parameters: await membership.parameters(start),
      identity,
      mesh: this.switchboard.mesh,
      deadlines: membership.signed.terms.deadlines,
      checkpoint,
      record: (entry, detail) => platform.storage.record(start.round_id, entry, detail),
      train: (signal) =>
        membership.trainer.update(checkpoint, start.round_id, signal, (done, total) => progress("train", done, total)),
      onStage: (stage) => progress(stage, 1, 1),
      onRefused: (peer, message) => this.hub.tell("error", { code: "refused-message", message, run, peer }),
    });
    if (this.isStopped) throw new NodeError("the node is stopping", "stopped");
    membership.begin(attempt);
    return attempt;
  }

  private async reportResult(
    membership: Membership,
    start: ServerMessages["round_start"],
    report: AttemptReport,
  ): Promise<void> {
    const { outcome, tail } = report;
    if (outcome.action !== "completed") return;
    const { run, round, attempt } = start;
    const survivors = indexesOf(outcome.survivors);
    this.hub.tell("result", {
      run,
      round,
      modelDigest: outcome.modelDigest,
      survivors: survivors.length,
      metrics: readTail(membership.plan.manifest, membership.signed.terms, tail),
      milliseconds: report.milliseconds,
      bytesSent: report.bytesSent,
      bytesReceived: report.bytesReceived,
    });
    const signatures = [...outcome.signatures].map(([index, signature]) => ({ index, signature }));
    const result = { run, round, attempt, model_digest: outcome.modelDigest, survivors, metrics: tail, signatures };
    await this.guard(this.session.result(result), run);
  }

  private async reportFailure(start: ServerMessages["round_start"], reason: string): Promise<void> {
    const { run, round, attempt } = start;
    const failure = { run, round, attempt, reason: reason.slice(0, 1024), missing: [] };
    await this.guard(this.session.request("round_failed", failure, "done"), run);
  }

  // Keeping up with a run.

  /** A round was logged: get the model if this node missed it. */
  private async follow(run: string): Promise<void> {
    const membership = this.memberships.get(run);
    if (membership === undefined || membership.attempts[0]?.isEnded === false) return; // its end comes back here
    const entry = this.logged.get(run);
    if (entry === undefined || entry.round < membership.round) return;
    if (entry.round !== membership.round || entry.model_digest !== membership.digest) await this.catchUp(membership);
  }

  /** Hold the run's current model and say so; gives up after some tries, until the next round is logged. */
  private async catchUp(membership: Membership): Promise<void> {
    const { run } = membership.signed;
    for (let tries = 0; tries < CATCH_UP_TRIES && !this.isStopped; tries++) {
      try {
        const { status } = await this.session.request("get_run", { run }, "run_reply");
        if (FINAL.includes(status.state) && status.round === 0) return;
        if (status.round !== membership.round || status.model_digest !== membership.digest) {
          const found = await this.switchboard.fetchModel(run, membership.modelBytes);
          await this.checkFetched(membership, found);
          await membership.hold(found.round, modelFrom(found.data));
        }
        await this.session.request("ready", { run, round: membership.round, model_digest: membership.digest }, "done");
        return;
      } catch (error) {
        if (error instanceof SignalingRefusedError && error.code === "stale-model") continue;
        if (!(error instanceof ProtocolError || error instanceof NodeError)) throw error;
        if (!this.isStopped) this.report(error, run);
        return;
      }
    }
  }

  /** Believe no signaling server about a model: a quorum's signatures, or the plan's own initial values. */
  private async checkFetched(membership: Membership, found: { round: number; digest: string }): Promise<void> {
    const { run, terms } = membership.signed;
    if (found.round === 0) {
      if (found.digest !== (await membership.initialDigest())) {
        throw new LinkError(`run ${short(run)}: signaling names another initial model than the plan's`);
      }
      return;
    }
    const page = await this.session.request("log", { run, first: found.round, limit: 1 }, "log_page");
    const entry = page.entries[0];
    if (entry === undefined) throw new LinkError(`run ${short(run)}: signaling has logged no round ${found.round}`);
    await checkEntry(entry, { run, round: found.round, digest: found.digest, terms });
  }

  // Small things.

  private onRoundMessage(peer: PeerId, payload: Bytes, bulk: boolean): void {
    const tag = toHex(payload.subarray(4, 12));
    const attempt = this.attempts().find((candidate) => toHex(fromHex(candidate.roundId).subarray(0, 8)) === tag);
    if (attempt !== undefined) {
      attempt.receive(peer, payload, bulk);
      return;
    }
    // others may have been told of the round a little earlier: keep what fits one start
    const waiting = this.early.get(tag) ?? [];
    this.early.set(tag, waiting);
    if (!bulk && waiting.length < MAX_EARLY_MESSAGES) waiting.push({ peer, payload: payload.slice() });
    while (this.early.size > MAX_EARLY_ROUNDS) this.early.delete(this.early.keys().next().value as string);
  }

  private attempts(): Attempt[] {
    return [...this.memberships.values()].flatMap((membership) => membership.attempts);
  }

  /** The attempt at a round that is still open on this peer. */
  private current(run: string, round: number): Attempt | null {
    const membership = this.memberships.get(run);
    return membership !== undefined && membership.round + 1 === round ? (membership.attempts[0] ?? null) : null;
  }

  private spawn(work: Promise<void>, run: string): void {
    void this.guard(work, run);
  }

  /** Whatever goes wrong is told; nothing of it ends the node. */
  private async guard(work: Promise<unknown>, run: string | null): Promise<void> {
    try {
      await work;
    } catch (error) {
      if (!this.isStopped) this.report(error, run);
    }
  }

  private report(error: unknown, run: string | null): void {
    const isKnown = error instanceof NodeError || error instanceof ProtocolError;
    const message = error instanceof Error ? error.message : String(error);
    this.hub.tell("error", { code: isKnown ? error.code : "internal-error", message, run, peer: null });
  }
}
