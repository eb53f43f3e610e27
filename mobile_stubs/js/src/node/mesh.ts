/** Authenticated links to many peers, made through any signaling and kept across rounds. */

import { type Bytes, short } from "../protocol/bytes.js";
import { LimitExceededError, LinkError } from "../protocol/errors.js";
import type { Identity, PeerId } from "../protocol/identity.js";
import type { Kind } from "../protocol/link/framing.js";
import { type NegotiationKind, openNegotiation, ReplayGuard } from "../protocol/link/negotiation.js";
import type { Traffic } from "./link.js";
import { Peer, type PeerContext } from "./peer.js";
import type { IceServer, Rtc } from "./platform.js";
import { RunningClock } from "./running-clock.js";

const MODEL_MESSAGE_BYTES = 1 << 20;
const MAX_LINKS = 256;
const TICK_MS = 250;

/** What a mesh is made of. Callbacks must not block. */
export interface MeshOptions {
  readonly identity: Identity;
  readonly rtc: Rtc;
  readonly iceServers: () => readonly IceServer[];
  readonly sendSignal: (peer: PeerId, kind: NegotiationKind, payload: Bytes) => Promise<void>;
  readonly onMessage: (peer: PeerId, kind: Kind, payload: Bytes) => void;
  readonly onLink: (peer: PeerId, up: boolean, reason: string) => void;
  /** A link was ended because of what came over it. */
  readonly onFault: (peer: PeerId, reason: string) => void;
  /** Who may link to this node without being asked. */
  readonly mayLink: (peer: PeerId) => boolean;
}

/** All links of one node. */
export class Mesh {
  /** Read at every tick; attempts at rounds go by it too. */
  readonly clock = new RunningClock(() => performance.now(), TICK_MS);
  private readonly peers = new Map<PeerId, Peer>();
  private readonly context: PeerContext;
  private readonly guard = new ReplayGuard();
  private readonly ticker: ReturnType<typeof setInterval>;
  private sequence = 0;
  private isClosed = false;
  private past: Traffic = { sent: 0, received: 0 };

  constructor(private readonly options: MeshOptions) {
    this.context = {
      identity: options.identity,
      rtc: options.rtc,
      clock: this.clock,
      iceServers: options.iceServers,
      limits: { bulkBytes: 0, modelBytes: MODEL_MESSAGE_BYTES },
      nextSequence: () => (this.sequence = Math.max(this.sequence + 1, Date.now())),
      sendSignal: options.sendSignal,
      onMessage: options.onMessage,
      onLink: options.onLink,
      onFault: options.onFault,
    };
    this.ticker = setInterval(() => this.tick(), TICK_MS);
  }

  /** SHA-256 of this process's DTLS certificate, 64 lower-case hexadecimal digits. */
  get fingerprint(): string {
    return this.context.rtc.fingerprint;
  }

  /** The peers a link is open to. */
  get linked(): ReadonlySet<PeerId> {
    return new Set([...this.peers.values()].filter((peer) => peer.link !== null).map((peer) => peer.id));
  }

  /** Traffic with all peers since the mesh was made. */
  get total(): Traffic {
    const all = [this.past, ...[...this.peers.values()].map((peer) => peer.traffic)];
    return {
      sent: all.reduce((sum, traffic) => sum + traffic.sent, 0),
      received: all.reduce((sum, traffic) => sum + traffic.received, 0),
    };
  }

  /** SHA-256 of the certificate that the open link to a peer was made with; null without a link. */
  remoteFingerprint(peer: PeerId): string | null {
    return this.peers.get(peer)?.link?.view.remoteFingerprint ?? null;
  }

  /** Accept bulk messages of at most so many bytes on every link; 0, as at first, refuses them. */
  setBulkLimit(bulkBytes: number): void {
    this.context.limits = { bulkBytes, modelBytes: MODEL_MESSAGE_BYTES };
    for (const peer of this.peers.values()) peer.applyLimits();
  }

  /**
   * Want links to these peers; resolves when each is linked, given up, or the time is over.
   *
   * @throws LinkError the mesh is closed, or a peer is this node.
   * @throws LimitExceededError more peers than may be linked.
   */
  async connect(peers: Iterable<PeerId>, timeoutMs: number): Promise<void> {
    if (this.isClosed) throw new LinkError("the mesh is closed"); // also for peers that it still knows
    const asked = new Set(peers);
    if (asked.size > MAX_LINKS) throw new LimitExceededError(`${asked.size} peers to be linked, no room for more than ${MAX_LINKS}`);
    const wanted = [...asked].map((id) => {
      const peer = this.peer(id, true);
      this.peers.delete(id); // in order of when they were wanted last
      this.peers.set(id, peer);
      peer.want();
      return peer;
    });
    await Promise.all(wanted.map((peer) => peer.linked(timeoutMs)));
  }

  /** Why there is no link to a peer. */
  errorOf(peer: PeerId): LinkError {
    return this.peers.get(peer)?.error ?? new LinkError(`no link to ${short(peer)} came about`);
  }

  /**
   * Take a document that signaling brought; negotiation goes on in the background.
   *
   * @throws ProtocolError it is forged, changed, replayed, not for this node or not allowed; nothing came of it.
   */
  async receiveSignal(sender: PeerId, kind: string, payload: Bytes): Promise<void> {
    const receiver = this.context.identity.peerId;
    const document = await openNegotiation(payload, { sender, receiver, kind });
    this.guard.admit(document, Date.now());
    const known = this.peers.get(sender);
    if (known?.isWanted !== true && !this.options.mayLink(sender)) {
      throw new LinkError(`link ${kind} from ${short(sender)}: ${short(receiver)} refuses links`);
    }
    if (known === undefined && kind !== "offer") {
      throw new LinkError(`link ${kind} from ${short(sender)}: no attempt waits for it`);
    }
    this.peer(sender).signal(document);
  }

  /** Signaling could not bring a peer what this node sent it. */
  undelivered(peer: PeerId): void {
    this.peers.get(peer)?.undelivered();
  }

  /** Signaling has no session with a peer any more: if it is silent, it is not only slow. */
  signalingLost(peer: PeerId): void {
    this.peers.get(peer)?.signalingLost();
  }

  /** Signaling has a session with a peer after all, or again: if it is silent, it may only be slow. */
  signalingRegained(peer: PeerId): void {
    this.peers.get(peer)?.signalingRegained();
  }

  /**
   * Queue one message; the payload must not change until `drain`.
   *
   * @throws LinkError no link is open to the peer.
   * @throws LimitExceededError too much waits for this peer.
   */
  send(peer: PeerId, kind: Kind, payload: Bytes): void {
    const link = this.peers.get(peer)?.link;
    if (link === undefined || link === null) throw this.errorOf(peer);
    link.send(kind, payload);
  }

  /** Wait until what was sent to a peer has left the queue. */
  async drain(peer: PeerId): Promise<void> {
    const link = this.peers.get(peer)?.link;
    if (link === undefined || link === null) throw this.errorOf(peer);
    await link.drain();
  }

  /** End every link and attempt. */
  close(reason: string): void {
    this.isClosed = true;
    clearInterval(this.ticker);
    for (const peer of this.peers.values()) peer.close(reason);
  }

  private peer(id: PeerId, isAskedHere = false): Peer {
    const found = this.peers.get(id);
    if (found !== undefined) return found;
    if (this.isClosed) throw new LinkError("the mesh is closed");
    if (id === this.context.identity.peerId) throw new LinkError(`${short(id)} cannot link to itself`);
    this.dropIdle();
    if (this.peers.size >= MAX_LINKS && isAskedHere) this.makeRoom(id);
    else if (this.peers.size >= MAX_LINKS) {
      throw new LimitExceededError(`${this.peers.size} peers are linked or linking, no room for ${short(id)}`);
    }
    const peer = new Peer(id, this.context);
    this.peers.set(id, peer);
    return peer;
  }

  private dropIdle(): void {
    for (const peer of [...this.peers.values()].filter((candidate) => candidate.isIdle)) this.forget(peer);
  }

  /**
   * End a link that only the other side wants, or else the one that was wanted here longest ago: peers that fetch
   * models, and cohorts of long ago, keep no round from linking.
   */
  private makeRoom(newcomer: PeerId): void {
    const peers = [...this.peers.values()];
    const found = peers.find((peer) => !peer.isWanted) ?? peers[0];
    if (found === undefined) return;
    found.close(`its place is needed for ${short(newcomer)}`);
    this.forget(found);
  }

  private forget(peer: Peer): void {
    this.past = { sent: this.past.sent + peer.traffic.sent, received: this.past.received + peer.traffic.received };
    this.peers.delete(peer.id);
  }

  private tick(): void {
    const now = this.clock.now();
    for (const peer of this.peers.values()) peer.tick(now);
  }
}
