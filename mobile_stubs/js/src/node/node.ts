/** The node: answers offers by its owner's policy, takes part in rounds, serves models (spec 06). */

import { type Dataset, schemaOf } from "../plans/data.js";
import { type DatasetSource, readDataset } from "../plans/dataset-source.js";
import { type Bytes, short } from "../protocol/bytes.js";
import { randomBytes } from "../protocol/crypto.js";
import { LimitExceededError, ProtocolError } from "../protocol/errors.js";
import type { Identity, PeerId } from "../protocol/identity.js";
import { signSealingKey } from "../protocol/signaling/handshake.js";
import type { ServerMessages } from "../protocol/signaling/messages.js";
import type { Attempt } from "./attempt.js";
import type { NodeContext } from "./context.js";
import { ALWAYS, type Device } from "./device.js";
import { EarlyMessages, tagOf } from "./early.js";
import { NodeError, NotNowError, SignalingDownError } from "./errors.js";
import { EventHub, type NodeEvent, type NodeEventName, type NodeEvents } from "./events.js";
import { isFinal } from "./keeping-up.js";
import type { SignedRun } from "./membership.js";
import { Entrance, MAX_OFFERS, type OpenOffer, openOffer } from "./offers.js";
import { Participation } from "./participation.js";
import type { IceServer, Platform, Tensor } from "./platform.js";
import { type Policy, policyOf, type Verdict } from "./policy.js";
import { type CompletedRound, openReceipt, type Receipt, receiptTime, sealReceipt } from "./receipts.js";
import { Refusals } from "./refusals.js";
import { Session, type SessionEvent } from "./session.js";
import { Switchboard } from "./switchboard.js";

/** Runs accepted and not over; each holds a model and its graphs in memory. */
const MAX_RUNS = 32;
/** Runs that are over and whose model this node goes on serving. */
const KEPT_ENDED = 8;

/** Set-up messages of others that wait to be checked; honest peers of a cohort send a few hundred together. */
const MAX_WAITING_RELAYS = 4096;

/** How a node is made. */
export interface NodeOptions {
  readonly identity: Identity;
  readonly platform: Platform;
  /** What the owner allows; what is left out is careful, and without `authors` nothing is accepted. */
  readonly policy?: Partial<Policy>;
  /** Typed arrays, or a source that gives batches of rows and is read once, when the node connects. */
  readonly datasets: readonly (Dataset | DatasetSource)[];
  /** Wait for `join` after each offer, also where the policy would accept. Off by default. */
  readonly ask?: boolean;
  /** When this device may work; always, by default. */
  readonly device?: Device;
  /** STUN and TURN servers; a function is asked anew for each link, for credentials that expire. */
  readonly iceServers?: readonly IceServer[] | (() => readonly IceServer[]);
  /** Peer id of the signaling server to pin; without it TLS alone is trusted. */
  readonly expectedServer?: PeerId;
  /** Stops the node, also while it connects. */
  readonly signal?: AbortSignal;
}

/** A peer of private machine learning on an open session. */
export class Node {
  private readonly hub = new EventHub();
  private readonly policy: Policy;
  private readonly device: Device;
  private readonly considering = new Set<string>();
  private readonly offers = new Map<string, OpenOffer>();
  private readonly runs = new Map<string, Participation>();
  private readonly early = new EarlyMessages();
  private readonly refusals = new Refusals();
  private readonly stopping = new AbortController();
  private datasets: readonly Dataset[] = [];
  private context!: NodeContext;
  private entrance!: Entrance;
  private ignoreDevice = () => {};
  private order: Promise<void> = Promise.resolve();
  private waitingRelays = 0;

  private constructor(private readonly options: NodeOptions) {
    this.policy = policyOf(options.policy ?? {});
    this.device = options.device ?? ALWAYS;
  }

  /**
   * Connect to a signaling server and register as a node with these datasets.
   *
   * @throws NodeError signaling is down, refuses, or is not to be trusted; or a dataset or the policy is unusable.
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
   * @throws NodeError it was not offered, the owner's policy refuses it, or its plan cannot be had or run.
   * @throws NotNowError the device rules say no for the moment; the offer stays.
   */
  async join(run: string, options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    const offer = this.offers.get(run);
    if (offer === undefined) throw new NodeError(`run ${short(run)} was not offered to this node`, "unknown-run");
    const { signed, verdict } = offer;
    const dataset = this.datasets.find((candidate) => candidate.name === verdict.dataset);
    if (!verdict.accepted || dataset === undefined) throw new NodeError(`run ${short(run)}: ${verdict.reason}`, "declined");
    options.signal?.throwIfAborted();
    this.offers.delete(run); // a second `join` meanwhile finds nothing
    try {
      const objection = await this.device.whyNotNow();
      if (objection !== null) throw new NotNowError(objection.rule, objection.reason);
      this.makeRoom(signed);
      const membership = await this.entrance.enter(offer, dataset, options.signal);
      await this.context.keepReceipt(signed, verdict);
      this.runs.set(run, new Participation(this.context, membership, verdict, this.early));
    } catch (error) {
      this.offers.set(run, offer);
      throw error;
    }
    const limits = [...this.runs.values()].map((part) => part.membership.bulkLimit);
    this.context.switchboard.mesh.setBulkLimit(Math.max(...limits));
    this.hub.tell("joined", { run, runName: signed.terms.name, dataset: dataset.name });
    await this.context.session.accept({ run, dataset: dataset.name });
    this.runs.get(run)?.catchUp();
  }

  /** Turn an offered run down. */
  async decline(run: string, reason = ""): Promise<void> {
    const offer = this.offers.get(run);
    this.offers.delete(run);
    if (offer !== undefined) {
      const owners: Verdict = { accepted: false, rule: "owner", reason: reason || "the owner declined", dataset: null };
      await this.context.keepReceipt(offer.signed, offer.verdict.accepted ? owners : offer.verdict);
    }
    await this.context.session.request("decline", { run, reason: reason.slice(0, 1024) }, "done");
  }

  /** Take no further part in a run. */
  async leave(run: string): Promise<void> {
    await this.context.session.withdraw(run);
    this.runs.get(run)?.stop();
    this.runs.delete(run);
  }

  /**
   * The model this node holds of a run: rounds it went through, and the digest (over the moments too) it is known by.
   * `local` is no part of it: parameters of this peer's own, where the plan has such, which the node itself sends to nobody.
   */
  holds(run: string): { round: number; modelDigest: string; model: Float32Array; local: Float32Array } | null {
    const found = this.runs.get(run)?.membership;
    if (found === undefined) return null;
    return { round: found.round, modelDigest: found.digest, model: found.fit, local: found.trainer.local.slice() };
  }

  /**
   * Outputs of the model this node holds, with its own parameters, for inputs of its owner, on this device.
   *
   * @throws NodeError the node is not in that run, the inputs do not fit, or the plan cannot predict.
   */
  async predict(
    run: string,
    inputs: Readonly<Record<string, Tensor>>,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<Tensor> {
    const found = this.runs.get(run)?.membership;
    if (found === undefined) throw new NodeError(`this node is not in run ${short(run)}`, "unknown-run");
    options.signal?.throwIfAborted();
    const output = await found.trainer.predict(found.fit, inputs);
    options.signal?.throwIfAborted();
    return output;
  }

  /**
   * Every receipt this node keeps, oldest first, verified; `envelope` is what may be handed to others.
   *
   * @throws ReceiptError what is stored is no receipt of this node any more.
   */
  async receipts(): Promise<{ readonly receipt: Receipt; readonly envelope: Bytes }[]> {
    const kept = await this.options.platform.storage.receipts();
    return Promise.all(kept.map(async (envelope) => ({ envelope, receipt: await openReceipt(envelope, this.peerId) })));
  }

  /** Leave everything after telling the others. */
  stop(): void {
    if (this.stopping.signal.aborted) return;
    this.stopping.abort();
    this.ignoreDevice();
    for (const part of this.runs.values()) part.stop();
    this.context.switchboard.close("the node is stopping");
    this.context.session.close();
    this.hub.close();
    this.options.platform.close();
  }

  private async open(url: string): Promise<void> {
    const { identity, platform, iceServers = [], expectedServer, signal } = this.options;
    try {
      signal?.throwIfAborted();
      this.datasets = await Promise.all(this.options.datasets.map((dataset) => readDataset(dataset, signal)));
      const schemas = this.datasets.map((dataset) => schemaOf(dataset, this.policy.shareExampleCounts));
      const servers = typeof iceServers === "function" ? iceServers : () => iceServers;
      const rtc = await platform.createRtc();
      rtc.check?.(servers());
      const switchboard = await Switchboard.create(identity, rtc, servers, {
        onRoundMessage: (peer, payload, bulk) => this.onRoundMessage(peer, payload, bulk),
        onLink: (peer, up) => this.attempts().forEach((attempt) => attempt.linkChanged(peer, up)),
        onUnreachable: (peer) => this.attempts().forEach((attempt) => attempt.peerGone(peer)),
        onRefused: (peer, message) => this.refused(peer, message, null),
        lookupModel: (peer, run, round, digest) => this.lookupModel(peer, run, round, digest),
      });
      const session = new Session({
        url,
        identity,
        openSocket: (where) => platform.openSocket(where),
        onEvent: (event) => this.onEvent(event),
        expectedServer: expectedServer ?? null,
        signal: signal ?? null,
      });
      switchboard.attach(session);
      this.begin(session, switchboard); // before the first event may come
      try {
        await session.start();
        await session.register({
          datasets: schemas,
          sealing_key: switchboard.sealingKey,
          sealing_signature: await signSealingKey(identity, switchboard.sealingKey),
          max_runs: 4,
        });
      } catch (error) {
        switchboard.close("no session");
        session.close();
        throw error;
      }
    } catch (error) {
      this.stopping.abort();
      platform.close();
      throw error;
    }
    signal?.addEventListener("abort", () => this.stop(), { once: true });
    this.ignoreDevice = this.device.onChange(() => this.deviceChanged());
  }

  private begin(session: Session, switchboard: Switchboard): void {
    const { identity, platform } = this.options;
    this.context = {
      identity,
      policy: this.policy,
      device: this.device,
      storage: platform.storage,
      hub: this.hub,
      session,
      switchboard,
      stopping: this.stopping.signal,
      keepReceipt: (signed, verdict, completed) => this.keepReceipt(signed, verdict, completed),
      report: (error, run) => this.report(error, run),
      refused: (peer, message, run) => this.refused(peer, message, run),
    };
    this.entrance = new Entrance(this.context, platform.runtime, randomBytes(32));
  }

  // Events of the session, in the order they came.

  private onEvent(event: SessionEvent): void {
    switch (event.type) {
      case "relayed":
      case "introduced":
      case "relay_failed":
        this.relayed(event);
        break;
      case "offer":
        this.offered(event);
        break;
      case "round_start":
        // a cohort is named of peers with sessions; who came back between two cohorts has no other notice
        for (const { peer } of event.members) this.context.switchboard.mesh.signalingRegained(peer);
        this.announced(event);
        break;
      case "round_aborted":
        this.runs.get(event.run)?.close(event);
        break;
      case "round_logged":
        this.runs.get(event.entry.run)?.logged(event.entry);
        break;
      case "run_changed":
        this.runChanged(event.status);
        break;
      case "peer_gone":
        this.context.switchboard.mesh.signalingLost(event.peer);
        for (const attempt of this.runs.get(event.run)?.membership.attempts ?? []) attempt.peerGone(event.peer);
        break;
      case "peer_back":
        this.context.switchboard.mesh.signalingRegained(event.peer);
        break;
      case "disconnected":
        this.report(new SignalingDownError(this.context.session.url, `away: ${event.reason}`), null);
        break;
      case "reconnected":
        for (const part of this.runs.values()) part.catchUp();
        break;
      case "ended":
        if (event.error !== null) this.report(event.error, null);
        this.stop();
        break;
      default: // what watchers are told
    }
  }

  /** Negotiation is checked one document after the other; a server that floods loses what is too much. */
  private relayed(event: Extract<SessionEvent, { type: "relayed" | "introduced" | "relay_failed" }>): void {
    if (this.waitingRelays >= MAX_WAITING_RELAYS) return;
    this.waitingRelays++;
    this.order = this.order
      .then(() => this.guard(this.context.switchboard.handle(event), null))
      .finally(() => this.waitingRelays--);
  }

  /** Members may link from now on, before this node has looked at the round itself. */
  private announced(start: ServerMessages["round_start"]): void {
    const part = this.runs.get(start.run);
    if (part === undefined || part.isOver) return;
    const routed = () => this.context.switchboard.route(start.round_id, start.members);
    this.order = this.order.then(routed).catch(() => undefined); // a refused cohort is reported by who takes it up
    this.refusals.clear();
    part.announce(start);
  }

  private runChanged({ run, state, reason }: ServerMessages["run_changed"]["status"]): void {
    const part = this.runs.get(run);
    if (part === undefined || !isFinal(state)) return;
    part.membership.hasEnded = true;
    this.hub.tell("ended", { run, state, reason });
  }

  // Offers.

  private offered(offer: ServerMessages["offer"]): void {
    const { run } = offer;
    if (this.considering.has(run)) return; // offered again after a reconnect, while the plan was on its way
    if (this.considering.size + this.offers.size >= MAX_OFFERS && !this.offers.has(run)) {
      const reason = `offer ${short(run)} is not looked at: ${MAX_OFFERS} wait already`;
      this.report(new LimitExceededError(reason), run);
      return;
    }
    this.considering.add(run);
    this.spawn(
      this.consider(offer).finally(() => this.considering.delete(run)),
      run,
    );
  }

  private async consider(offer: ServerMessages["offer"]): Promise<void> {
    const { run } = offer;
    const known = this.runs.get(run);
    if (known !== undefined && !known.isOver) {
      await known.offeredAgain();
      return;
    }
    try {
      const open = await openOffer(offer, this.policy, this.datasets);
      this.offers.set(run, open);
      const { signed, manifest, verdict } = open;
      this.hub.tell("offer", { run, author: signed.author, manifest, terms: signed.terms, verdict });
      if (!verdict.accepted) await this.decline(run, verdict.reason);
      else if (this.options.ask !== true) await this.join(run);
    } catch (error) {
      if (error instanceof NotNowError) {
        this.hub.tell("waiting", { run, rule: error.rule, reason: error.message });
        return;
      }
      if (!(error instanceof ProtocolError || error instanceof NodeError)) throw error;
      this.report(error, run);
      this.offers.delete(run);
      // what a lost connection caught is offered again when there is a new one
      if (!(error instanceof SignalingDownError)) await this.decline(run, error.message);
    }
  }

  /** Runs that wait for this device, and offers that did, may go on. */
  private deviceChanged(): void {
    for (const [run, part] of this.runs) this.spawn(part.reconsider(), run);
    if (this.options.ask === true) return;
    for (const [run, { verdict }] of this.offers) {
      if (verdict.accepted) this.spawn(this.join(run).catch(unlessNotNow), run);
    }
  }

  /**
   * Let runs go that are over, so that memory does not grow with every run this node ever took part in.
   *
   * @throws LimitExceededError this node takes part in as many runs as it ever does.
   */
  private makeRoom(signed: SignedRun): void {
    const parts = [...this.runs.entries()];
    const ended = parts.filter(([, { membership }]) => membership.hasEnded && !membership.isAtWork);
    for (const [run, part] of ended.slice(0, Math.max(0, ended.length - KEPT_ENDED))) {
      part.stop();
      this.runs.delete(run);
    }
    if (parts.length - ended.length >= MAX_RUNS) {
      throw new LimitExceededError(`run ${short(signed.run)}: this node takes part in ${MAX_RUNS} runs already, its most`);
    }
  }

  // Small things.

  private onRoundMessage(peer: PeerId, payload: Bytes, bulk: boolean): void {
    const tag = tagOf(payload);
    const attempt = this.attempts().find((candidate) => candidate.roundId.startsWith(tag));
    if (tag.length === 16 && attempt !== undefined) attempt.receive(peer, payload, bulk);
    else this.early.keep(peer, payload, bulk); // others may have been told of the round a little earlier
  }

  private async lookupModel(peer: PeerId, run: string, round: number, digest: string): Promise<Bytes | null> {
    const membership = this.runs.get(run)?.membership;
    if (membership === undefined || !this.policy.serveModels || !membership.mayFetch(peer)) return null;
    return membership.lookup(round, digest);
  }

  private attempts(): Attempt[] {
    return [...this.runs.values()].flatMap((part) => part.membership.attempts);
  }

  private async keepReceipt(signed: SignedRun, verdict: Verdict, completed: CompletedRound | null = null): Promise<void> {
    const { identity, platform } = this.options;
    const { run, author, terms } = signed;
    const envelope = await sealReceipt(identity, {
      format: "peerplan-receipt/1",
      run,
      plan: terms.plan,
      author,
      name: terms.name,
      decision: verdict.accepted ? "accepted" : "declined",
      rule: verdict.rule,
      reason: verdict.reason.slice(0, 4000),
      dataset: verdict.dataset,
      time: receiptTime(Date.now()),
      completed,
    });
    await platform.storage.saveReceipt(envelope);
  }

  private spawn(work: Promise<void>, run: string): void {
    void this.guard(work, run);
  }

  /** Whatever goes wrong is told; nothing of it ends the node. */
  private async guard(work: Promise<unknown>, run: string | null): Promise<void> {
    try {
      await work;
    } catch (error) {
      if (!this.stopping.signal.aborted) this.report(error, run);
    }
  }

  private refused(peer: PeerId, message: string, run: string | null): void {
    if (!this.refusals.mayTell(peer)) return;
    this.hub.tell("error", { code: run === null ? "refused" : "refused-message", message, run, peer });
  }

  private report(error: unknown, run: string | null): void {
    const isKnown = error instanceof NodeError || error instanceof ProtocolError;
    const message = error instanceof Error ? error.message : String(error);
    this.hub.tell("error", { code: isKnown ? error.code : "internal-error", message, run, peer: null });
  }
}

function unlessNotNow(error: unknown): void {
  if (!(error instanceof NotNowError)) throw error;
}
