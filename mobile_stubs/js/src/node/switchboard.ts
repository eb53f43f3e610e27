/** One session, one mesh, and what goes between them: routes, sealed negotiation, models. */

import { type Bytes, short } from "../protocol/bytes.js";
import { LimitExceededError, LinkError, ProtocolError } from "../protocol/errors.js";
import type { Identity, PeerId } from "../protocol/identity.js";
import { Kind } from "../protocol/link/framing.js";
import type { NegotiationKind } from "../protocol/link/negotiation.js";
import { seal, SealingKey } from "../protocol/sealing.js";
import { checkSealingKey } from "../protocol/signaling/handshake.js";
import type { Member } from "../protocol/signaling/messages.js";
import { Mesh } from "./mesh.js";
import { ModelExchange } from "./models.js";
import type { IceServer, Rtc } from "./platform.js";
import type { Session, SessionEvent } from "./session.js";

const MAX_ROUTES = 1024;
const CONNECT_MS = 30_000;

interface Route {
  readonly via: string;
  readonly sealingKey: Bytes | null;
}

/** What a switchboard tells its node. */
export interface SwitchboardEvents {
  onRoundMessage(peer: PeerId, payload: Bytes, bulk: boolean): void;
  onLink(peer: PeerId, up: boolean): void;
  onUnreachable(peer: PeerId): void;
  /** Something of a peer was refused; for the owner's eyes. */
  onRefused(peer: PeerId, reason: string): void;
  /** The bytes of a model that `peer` asks for, where this node holds it and the peer may have it. */
  lookupModel(peer: PeerId, run: string, round: number, digest: string): Promise<Bytes | null>;
}

/** Brings negotiation to peers and messages to their readers. */
export class Switchboard {
  readonly mesh: Mesh;
  private readonly models: ModelExchange;
  private readonly routes = new Map<PeerId, Route>();
  private session: Session | null = null;

  private constructor(
    private readonly identity: Identity,
    private readonly sealing: SealingKey,
    rtc: Rtc,
    iceServers: () => readonly IceServer[],
    private readonly events: SwitchboardEvents,
  ) {
    this.mesh = new Mesh({
      identity,
      rtc,
      iceServers,
      sendSignal: (peer, kind, payload) => this.sendSignal(peer, kind, payload),
      onMessage: (peer, kind, payload) => this.onMessage(peer, kind, payload),
      onLink: (peer, up, reason) => {
        if (!up) this.models.linkDown(peer, reason);
        events.onLink(peer, up);
      },
      onFault: events.onRefused,
      mayLink: (peer) => this.routes.has(peer),
    });
    this.models = new ModelExchange(this.mesh, events.lookupModel, events.onRefused);
  }

  static async create(
    identity: Identity,
    rtc: Rtc,
    iceServers: () => readonly IceServer[],
    events: SwitchboardEvents,
  ): Promise<Switchboard> {
    return new Switchboard(identity, await SealingKey.generate(), rtc, iceServers, events);
  }

  /** Relay over this session. */
  attach(session: Session): void {
    this.session = session;
  }

  /** The X25519 key others seal their negotiation to. */
  get sealingKey(): Bytes {
    return this.sealing.publicKey;
  }

  /**
   * These peers may be reached, and may reach this one, by way of a cohort or an introduction.
   *
   * @throws SignatureError a sealing key that its peer did not sign: signaling tries to read along.
   */
  async route(via: string, members: readonly Member[]): Promise<void> {
    for (const { peer, sealing_key, sealing_signature } of members) {
      if (peer === this.identity.peerId) continue;
      if (sealing_key !== null) await checkSealingKey(peer, sealing_key, sealing_signature ?? new Uint8Array(0));
      this.routes.delete(peer);
      this.routes.set(peer, { via, sealingKey: sealing_key });
    }
    while (this.routes.size > MAX_ROUTES) this.routes.delete(this.routes.keys().next().value as string);
  }

  /** Take the session's events that concern links; others are ignored. */
  async handle(event: SessionEvent): Promise<void> {
    if (event.type === "relayed") {
      await this.guarded(event.from, async () => {
        const sealed = event.kind === "sealed";
        const document = sealed
          ? await this.sealing.open(event.payload, event.from, this.identity.peerId)
          : { kind: event.kind, payload: event.payload };
        await this.mesh.receiveSignal(event.from, document.kind, document.payload);
      });
    } else if (event.type === "introduced") {
      await this.guarded(event.peer.peer, () => this.route(event.via, [event.peer]));
    } else if (event.type === "relay_failed") {
      this.mesh.undelivered(event.to);
      // "not-in-cohort" only says that a newer cohort was named: the peer may be there, and the mesh tries again by that
      if (event.code === "peer-offline") this.events.onUnreachable(event.to);
    }
  }

  /**
   * A run's current model from any peer that holds it.
   *
   * @throws LinkError nobody online holds it, or every holder failed; the reasons are in the message.
   */
  async fetchModel(run: string, total: number): Promise<{ round: number; digest: string; data: Bytes }> {
    if (this.session === null) throw new LinkError("there is no session to ask for holders");
    const found = await this.session.request("introduce", { run }, "introduction");
    await this.route(found.via, found.holders);
    const failures: string[] = [];
    for (const peer of this.inOrder(found.holders)) {
      try {
        await this.mesh.connect([peer], CONNECT_MS);
        const data = await this.models.fetch(peer, run, found.round, found.model_digest, total);
        return { round: found.round, digest: found.model_digest, data };
      } catch (error) {
        if (!(error instanceof LinkError || error instanceof LimitExceededError)) throw error;
        failures.push(`${short(peer)}: ${error.message}`);
      }
    }
    const reasons = failures.join("; ") || "no peer that holds it is online";
    throw new LinkError(`run ${short(run)}: no model of round ${found.round} to be had (${reasons})`);
  }

  close(reason: string): void {
    this.mesh.close(reason);
  }

  /** Peers that are linked already first, and otherwise in no order that signaling could choose. */
  private inOrder(holders: readonly Member[]): PeerId[] {
    const { linked } = this.mesh;
    const drawn = holders
      .filter(({ peer }) => peer !== this.identity.peerId)
      .map(({ peer }) => ({ peer, place: Math.random() + (linked.has(peer) ? 0 : 1) }));
    return drawn.sort((a, b) => a.place - b.place).map(({ peer }) => peer);
  }

  private async sendSignal(peer: PeerId, kind: NegotiationKind, payload: Bytes): Promise<void> {
    const route = this.routes.get(peer);
    if (route === undefined || this.session === null) {
      this.events.onUnreachable(peer);
      return;
    }
    if (route.sealingKey === null) {
      this.session.relay({ to: peer, via: route.via, kind, payload });
      return;
    }
    const box = await seal(route.sealingKey, { kind, payload }, this.identity.peerId, peer);
    this.session.relay({ to: peer, via: route.via, kind: "sealed", payload: box });
  }

  private onMessage(peer: PeerId, kind: Kind, payload: Bytes): void {
    if (kind !== Kind.MODEL) {
      this.events.onRoundMessage(peer, payload, kind === Kind.BULK);
      return;
    }
    void this.guarded(peer, async () => this.models.receive(peer, payload));
  }

  private async guarded(peer: PeerId, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.events.onRefused(peer, error.message);
    }
  }
}
