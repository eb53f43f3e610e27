/**
 * Everything about one other peer: the attempt at a link, the link, and the wish to keep one (spec 04 §3).
 *
 * Perfect negotiation without rollback: the peer with the lower id is the impolite one and offers first; the other is
 * polite, offers after a grace period, and drops its own offer when one comes. An offer may come more than once. An
 * attempt that does not end in a link is thrown away, and a link is replaced only after its successor said HELLO.
 */

import { type Bytes, short, toHex } from "../protocol/bytes.js";
import { randomBytes } from "../protocol/crypto.js";
import { LinkError } from "../protocol/errors.js";
import type { Identity, PeerId } from "../protocol/identity.js";
import type { Kind, Limits } from "../protocol/link/framing.js";
import { type Negotiation, type NegotiationKind, sealNegotiation } from "../protocol/link/negotiation.js";
import { Bye, CHANNEL_LOW_BYTES, Link, type Traffic } from "./link.js";
import type { IceServer, Rtc, RtcConnection } from "./platform.js";
import type { RunningClock } from "./running-clock.js";

const LINK_TIMEOUT_MS = 15_000;
const OFFER_GRACE_MS = 500;
const BACKOFF_FIRST_MS = 250;
const BACKOFF_MAX_MS = 8_000;
const RECONNECT_FOR_MS = 60_000;
const MAX_WAITING_SIGNALS = 64;
/** How often the offer of one attempt is sent: the other side could have it sent without end by offers of its own. */
const MAX_OFFERS = 4;

/** What all peers of a mesh share. */
export interface PeerContext {
  readonly identity: Identity;
  readonly rtc: Rtc;
  readonly clock: RunningClock;
  readonly iceServers: () => readonly IceServer[];
  limits: Limits;
  nextSequence(): number;
  sendSignal(peer: PeerId, kind: NegotiationKind, payload: Bytes): Promise<void>;
  onMessage(peer: PeerId, kind: Kind, payload: Bytes): void;
  onLink(peer: PeerId, up: boolean, reason: string): void;
  /** A link was ended because of what came over it. */
  onFault(peer: PeerId, reason: string): void;
}

interface Attempt {
  readonly rtc: RtcConnection;
  readonly role: "offerer" | "answerer";
  readonly nonce: string;
  readonly timer: ReturnType<typeof setTimeout>;
  readonly settled: Promise<void>;
  readonly settle: () => void;
  /** The description offered; null before there is one. */
  offer: string | null;
  /** How often it was sent. */
  offers: number;
  remoteNonce: string | null;
  link: Link | null;
  isOver: boolean;
}

/** The other end of at most one link, seen from this mesh. */
export class Peer {
  link: Link | null = null;
  error: LinkError | null = null;
  isWanted = false;
  readonly traffic: Traffic = { sent: 0, received: 0 };
  private attempt: Attempt | null = null;
  private keeper: Promise<void> | null = null;
  private order: Promise<void> = Promise.resolve();
  private waitingSignals = 0;
  private changed = newSignal();

  constructor(
    readonly id: PeerId,
    private readonly context: PeerContext,
  ) {}

  /** Of two that offer at once, this one gives way. */
  private get isPolite(): boolean {
    return this.context.identity.peerId > this.id;
  }

  /** Whether nothing is here, under way or wanted, so that the peer can be forgotten. */
  get isIdle(): boolean {
    return this.link === null && this.attempt === null && this.waitingSignals === 0 && !this.isWanted;
  }

  /** Make a link and keep it: a lost one is made again for a minute. */
  want(): void {
    this.isWanted = true;
    if (this.link !== null || this.keeper !== null) return;
    this.keeper = this.keep().finally(() => {
      this.keeper = null;
      this.notify();
    });
  }

  /** Wait for a link; resolves without one when it is given up or the time is over. */
  async linked(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (this.link === null && this.keeper !== null && performance.now() < deadline) {
      await within(this.changed.promise, deadline - performance.now());
    }
  }

  /**
   * Take a verified negotiation document; it is handled in order, in the background.
   *
   * @throws LinkError too many of this peer wait already.
   */
  signal(document: Negotiation): void {
    if (this.waitingSignals >= MAX_WAITING_SIGNALS) {
      throw new LinkError(`${this.what(document.kind)}: ${this.waitingSignals} documents wait already`);
    }
    this.waitingSignals++;
    this.order = this.order.then(() => this.handle(document)).finally(() => this.waitingSignals--);
  }

  /** Signaling could not bring our offer: do not wait for an answer to it. */
  undelivered(): void {
    const { attempt } = this;
    if (attempt === null || attempt.remoteNonce !== null) return;
    this.settle(attempt, new LinkError(`${this.what("offer")}: signaling cannot reach the peer now`));
  }

  /** Signaling has no session with the peer any more. */
  signalingLost(): void {
    for (const link of [this.link, this.attempt?.link]) link?.signalingLost();
  }

  /** Signaling has a session with the peer again. */
  signalingRegained(): void {
    for (const link of [this.link, this.attempt?.link]) link?.signalingRegained();
  }

  /** Look after liveness; `now` is the clock's. */
  tick(now: number): void {
    for (const link of [this.link, this.attempt?.link]) link?.tick(now);
  }

  /** Accept messages up to the context's limits from now on. */
  applyLimits(): void {
    this.link?.setLimits(this.context.limits);
    this.attempt?.link?.setLimits(this.context.limits);
  }

  /** End everything with this peer. */
  close(reason: string): void {
    this.isWanted = false;
    if (this.attempt !== null) this.settle(this.attempt, new LinkError(`${this.what("link")}: ${reason}`));
    this.link?.close(reason);
    this.notify();
  }

  private async keep(): Promise<void> {
    const giveUp = performance.now() + RECONNECT_FOR_MS;
    let wait = this.isPolite ? OFFER_GRACE_MS : 0;
    for (let failures = 0; this.isWanted && this.link === null && performance.now() < giveUp; failures++) {
      await this.pause(wait);
      if (this.attempt === null && this.link === null && this.isWanted) await this.offer();
      await this.attempt?.settled;
      wait = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** failures) * (0.5 + Math.random() / 2);
    }
    if (this.link === null) this.isWanted = false; // given up until the next `want`: it takes nobody's place meanwhile
  }

  /** Wait; an attempt or a link that shows up meanwhile ends the wait. */
  private async pause(ms: number): Promise<void> {
    const until = performance.now() + ms;
    while (this.attempt === null && this.link === null && this.isWanted && performance.now() < until) {
      await within(this.changed.promise, until - performance.now());
    }
  }

  private async offer(): Promise<void> {
    const attempt = this.tryBegin("offerer");
    if (attempt === null) return;
    try {
      attempt.offer = await unlessOver(attempt, attempt.rtc.createOffer());
    } catch (error) {
      this.settle(attempt, new LinkError(`${this.what("offer")}: ${String(error)}`));
    }
    await this.sendOffer(attempt);
  }

  /** Send an offer that is made, while it has no answer. */
  private async sendOffer(attempt: Attempt): Promise<void> {
    if (attempt.isOver || attempt.offer === null || attempt.remoteNonce !== null || attempt.offers === MAX_OFFERS) return;
    attempt.offers++;
    try {
      await this.send("offer", attempt, attempt.offer);
    } catch (error) {
      this.settle(attempt, new LinkError(`${this.what("offer")}: ${String(error)}`));
    }
  }

  private async handle(document: Negotiation): Promise<void> {
    if (document.kind === "offer") await this.takeOffer(document);
    else if (document.kind === "answer") await this.takeAnswer(document);
    else await this.takeCandidate(document);
  }

  private async takeOffer(document: Negotiation): Promise<void> {
    const current = this.attempt;
    const isKnown = [current?.remoteNonce, this.link?.view.remoteNonce].includes(document.nonce);
    if (isKnown) return; // sent once more: it is being answered, or led to the link that is open
    if (current !== null) {
      if (current.role === "offerer" && current.remoteNonce === null && !this.isPolite) {
        // glare: our offer stands, theirs is dropped by both sides. Ours goes once more, since whoever offers may be a
        // new process that took the place of the one it went to
        await this.sendOffer(current);
        return;
      }
      this.settle(current, new LinkError(`${this.what("offer")}: the other side offered anew`));
    }
    const attempt = this.tryBegin("answerer");
    if (attempt === null) return;
    attempt.remoteNonce = document.nonce;
    try {
      const body = await unlessOver(attempt, attempt.rtc.acceptOffer(document.body));
      if (body !== null && !attempt.isOver) await this.send("answer", attempt, body);
    } catch (error) {
      this.settle(attempt, new LinkError(`${this.what("offer")}: ${String(error)}`));
    }
  }

  private async takeAnswer(document: Negotiation): Promise<void> {
    const { attempt } = this;
    if (attempt?.role !== "offerer" || document.reply_to !== attempt.nonce || attempt.remoteNonce !== null) {
      return; // an answer to an attempt that is over
    }
    attempt.remoteNonce = document.nonce;
    try {
      await unlessOver(attempt, attempt.rtc.acceptAnswer(document.body));
    } catch (error) {
      this.settle(attempt, new LinkError(`${this.what("answer")}: ${String(error)}`));
    }
  }

  private async takeCandidate(document: Negotiation): Promise<void> {
    const { attempt } = this;
    if (attempt === null || attempt.remoteNonce !== document.nonce) return; // for an attempt that is over
    try {
      await unlessOver(attempt, attempt.rtc.addCandidate(document.body));
    } catch (error) {
      this.settle(attempt, new LinkError(`${this.what("candidate")}: ${String(error)}`));
    }
  }

  /** Null, with the reason kept, where the platform makes no more connections. */
  private tryBegin(role: Attempt["role"]): Attempt | null {
    try {
      return this.begin(role);
    } catch (error) {
      this.error = new LinkError(`${this.what("link")}: ${String(error)}`);
      return null;
    }
  }

  private begin(role: Attempt["role"]): Attempt {
    const { rtc, iceServers } = this.context;
    const events = {
      onOpen: () => void this.opened(attempt),
      onData: (frame: Bytes) => {
        if (attempt.link === null) void this.opened(attempt); // a platform may tell of that after what came over it
        attempt.link?.receive(frame);
      },
      onWritable: () => attempt.link?.writable(),
      onClosed: (reason: string) => {
        if (attempt.link !== null) attempt.link.channelEnded(reason);
        else this.settle(attempt, new LinkError(`${this.what("link")}: ${reason}`));
      },
    };
    const late = () => this.settle(attempt, new LinkError(`${this.what("link")}: not made within ${LINK_TIMEOUT_MS / 1000} s`));
    const settled = newSignal();
    const attempt: Attempt = {
      rtc: rtc.connect({ iceServers: iceServers(), lowBytes: CHANNEL_LOW_BYTES, events }),
      role,
      nonce: toHex(randomBytes(16)),
      timer: setTimeout(late, LINK_TIMEOUT_MS),
      settled: settled.promise,
      settle: settled.fire,
      offer: null,
      offers: 0,
      remoteNonce: null,
      link: null,
      isOver: false,
    };
    this.attempt = attempt;
    this.notify();
    return attempt;
  }

  private async send(kind: NegotiationKind, attempt: Attempt, body: string): Promise<void> {
    const { identity, rtc } = this.context;
    const document: Negotiation = {
      kind,
      from: identity.peerId,
      to: this.id,
      nonce: attempt.nonce,
      reply_to: attempt.remoteNonce ?? "",
      sequence: this.context.nextSequence(),
      fingerprint: rtc.fingerprint,
      body,
    };
    await this.context.sendSignal(this.id, kind, await sealNegotiation(identity, document));
  }

  private async opened(attempt: Attempt): Promise<void> {
    if (attempt !== this.attempt || attempt.remoteNonce === null || attempt.link !== null) return;
    const { identity, rtc, limits, clock } = this.context;
    try {
      const view = {
        local: identity.peerId,
        remote: this.id,
        localFingerprint: rtc.fingerprint,
        remoteFingerprint: attempt.rtc.remoteFingerprint(),
        localNonce: attempt.nonce,
        remoteNonce: attempt.remoteNonce,
      };
      const events = {
        onReady: () => this.ready(attempt),
        onMessage: (kind: Kind, payload: Bytes) => this.context.onMessage(this.id, kind, payload),
        onEnd: (reason: string, retry: boolean) => this.ended(attempt, reason, retry),
        onFault: (reason: string) => this.context.onFault(this.id, reason),
      };
      attempt.link = new Link(attempt.rtc, view, limits, this.traffic, events, clock);
      await attempt.link.greet(identity);
    } catch (error) {
      this.settle(attempt, new LinkError(`${this.what("link")}: ${String(error)}`));
    }
  }

  private ready(attempt: Attempt): void {
    this.link?.close("replaced by a new link", Bye.REPLACED);
    this.link = attempt.link;
    this.error = null;
    this.settle(attempt, null);
    this.context.onLink(this.id, true, "linked");
  }

  private ended(attempt: Attempt, reason: string, retry: boolean): void {
    const error = new LinkError(`${this.what("link")}: ${reason}`);
    if (attempt.link !== this.link) {
      this.settle(attempt, error);
      return;
    }
    this.link = null;
    this.error = error;
    this.notify();
    this.context.onLink(this.id, false, reason);
    if (this.isWanted && retry) this.want();
  }

  private settle(attempt: Attempt, error: LinkError | null): void {
    if (attempt.isOver) return;
    attempt.isOver = true;
    clearTimeout(attempt.timer);
    if (attempt === this.attempt) this.attempt = null;
    if (error !== null) {
      this.error = error;
      if (attempt.link !== null) attempt.link.close(error.message, Bye.REFUSED);
      else attempt.rtc.close();
    }
    attempt.settle();
    this.notify();
  }

  private notify(): void {
    this.changed.fire();
    this.changed = newSignal();
  }

  private what(step: string): string {
    return `${step} between ${short(this.context.identity.peerId)} and ${short(this.id)}`;
  }
}

/** What a step of a connection gives; null if its attempt is over before: of a step amid which it is closed a browser never tells. */
function unlessOver<T>(attempt: Attempt, step: Promise<T>): Promise<T | null> {
  return Promise.race([step, attempt.settled.then(() => null)]);
}

function newSignal(): { readonly promise: Promise<void>; readonly fire: () => void } {
  let fire = () => {};
  const promise = new Promise<void>((resolve) => (fire = resolve));
  return { promise, fire };
}

/** Wait for a signal, but no longer than `ms`; leaves no timer behind. */
async function within(signal: Promise<void>, ms: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, Math.max(0, ms))));
  await Promise.race([signal, late]);
  clearTimeout(timer);
}
