/** Two meshes, signaling that delivers when the test says so, and connections in memory that open as real ones do. */

import { afterEach, describe, expect, it } from "vitest";
import { Mesh } from "../../src/node/mesh.js";
import type { Rtc, RtcConnection, RtcEvents } from "../../src/node/platform.js";
import type { Bytes } from "../../src/protocol/bytes.js";
import { Identity, type PeerId } from "../../src/protocol/identity.js";
import { Kind } from "../../src/protocol/link/framing.js";
import { type Negotiation, type NegotiationKind, openNegotiation, sealNegotiation } from "../../src/protocol/link/negotiation.js";

const WITHIN_MS = 12_000; // an attempt that nobody ends takes 15 s

interface Mail {
  readonly from: Side;
  readonly kind: NegotiationKind;
  readonly payload: Bytes;
}

/** One end of a connection in memory; both ends open when the offerer takes the answer of an end that is not closed. */
class End implements RtcConnection {
  readonly maxMessageBytes = 65_536;
  readonly bufferedBytes = 0;
  isOpen = false;
  isClosed = false;
  isDataFirst = false;
  /** Never says that it took the answer, as Chromium when it is closed meanwhile. */
  isStuck = false;
  hasTaken = false;
  other: End | null = null;

  constructor(
    private readonly number: number,
    private readonly side: Side,
    readonly events: RtcEvents,
  ) {}

  async createOffer(): Promise<string> {
    return this.described();
  }
  async acceptOffer(sdp: string): Promise<string> {
    this.other = this.side.world.endIn(sdp);
    return this.described();
  }
  async acceptAnswer(sdp: string): Promise<void> {
    this.hasTaken = true;
    this.side.world.tell();
    if (this.isStuck) return new Promise(() => {});
    const answerer = this.side.world.endIn(sdp);
    if (this.isClosed || answerer.isClosed || answerer.other !== this) return; // checks that nobody answers
    this.other = answerer;
    for (const end of [this, answerer]) end.isOpen = true;
    for (const end of [this, answerer]) if (!end.isDataFirst) end.events.onOpen();
  }
  async addCandidate(): Promise<void> {}
  remoteFingerprint(): string {
    return (this.other as End).side.fingerprint;
  }
  send(frame: Bytes): void {
    const { other } = this;
    queueMicrotask(() => {
      if (other?.isClosed !== false) return;
      other.events.onData(frame);
      if (other.isDataFirst) other.events.onOpen();
    });
  }
  /** The network takes the connection away. */
  fail(): void {
    this.isClosed = true;
    this.events.onClosed("the connection is failed");
  }
  close(): void {
    this.isClosed = true;
    this.isOpen = false;
  }

  private described(): string {
    const digits = (this.side.fingerprint.match(/../g) as string[]).join(":").toUpperCase();
    return `v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=fingerprint:sha-256 ${digits}\r\na=end:${this.number}\r\n`;
  }
}

/** A mesh, the connections it made and what it told of links. */
class Side {
  readonly ends: End[] = [];
  readonly links: boolean[] = [];
  readonly mesh: Mesh;
  private sequence = Date.now() + 60_000;

  constructor(
    readonly world: World,
    readonly identity: Identity,
    readonly fingerprint: string,
  ) {
    const rtc: Rtc = { fingerprint, connect: ({ events }) => this.world.connect(this, events) };
    this.mesh = new Mesh({
      identity,
      rtc,
      iceServers: () => [],
      sendSignal: async (_peer, kind, payload) => this.world.mail({ from: this, kind, payload }),
      onMessage: () => this.world.tell(),
      onLink: (_peer, up) => {
        this.links.push(up);
        this.world.tell();
      },
      onFault: (_peer, reason) => {
        throw new Error(reason);
      },
      mayLink: () => true,
    });
  }

  get peerId(): PeerId {
    return this.identity.peerId;
  }

  /** A document of this side with a sequence number above all before. */
  async again({ kind, payload }: Mail, to: Side): Promise<Mail> {
    const expected = { sender: this.peerId, receiver: to.peerId, kind };
    const document: Negotiation = { ...(await openNegotiation(payload, expected)), sequence: this.sequence++ };
    return { from: this, kind, payload: await sealNegotiation(this.identity, document) };
  }
}

/** The impolite side has the lower id. */
class World {
  readonly sent: Mail[] = [];
  /** Whether a document is delivered at once; else the test does that. */
  passes: (mail: Mail) => boolean = () => true;
  private readonly ends: End[] = [];
  private readonly waiting: (() => void)[] = [];

  private constructor(identities: readonly [Identity, Identity]) {
    const [a, b] = identities;
    const [low, high] = a.peerId < b.peerId ? [a, b] : [b, a];
    this.impolite = new Side(this, low, "11".repeat(32));
    this.polite = new Side(this, high, "22".repeat(32));
  }

  readonly impolite: Side;
  readonly polite: Side;

  static async make(): Promise<World> {
    return new World([await Identity.generate(), await Identity.generate()]);
  }

  connect(side: Side, events: RtcEvents): RtcConnection {
    const end = new End(this.ends.length, side, events);
    this.ends.push(end);
    side.ends.push(end);
    this.tell();
    return end;
  }

  endIn(sdp: string): End {
    return this.ends[Number(/a=end:(\d+)/.exec(sdp)?.[1])] as End;
  }

  mail(mail: Mail): void {
    this.sent.push(mail);
    if (this.passes(mail)) void this.deliver(mail);
    this.tell();
  }

  async deliver({ from, kind, payload }: Mail): Promise<void> {
    const to = from === this.impolite ? this.polite : this.impolite;
    await to.mesh.receiveSignal(from.peerId, kind, payload);
  }

  of(side: Side, kind: NegotiationKind): Mail[] {
    return this.sent.filter((mail) => mail.from === side && mail.kind === kind);
  }

  link(): Promise<unknown> {
    const { impolite, polite } = this;
    return Promise.all([impolite.mesh.connect([polite.peerId], WITHIN_MS), polite.mesh.connect([impolite.peerId], WITHIN_MS)]);
  }

  get isLinked(): boolean {
    return this.impolite.mesh.linked.has(this.polite.peerId) && this.polite.mesh.linked.has(this.impolite.peerId);
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.waiting.push(resolve));
  }

  tell(): void {
    for (const wake of this.waiting.splice(0)) wake();
  }

  close(): void {
    for (const side of [this.impolite, this.polite]) side.mesh.close("the test is over");
  }
}

describe("linking", () => {
  let world: World;
  afterEach(() => world.close());

  it("takes one offer and one answer where nothing goes wrong", async () => {
    world = await World.make();
    await world.link();
    expect(world.isLinked).toBe(true);
    expect(world.sent.map(({ from, kind }) => [from === world.impolite, kind])).toEqual([[true, "offer"], [false, "answer"]]);
  });

  it("where an offer is late and another crosses it, has it sent once more and answered once", async () => {
    world = await World.make();
    const { impolite, polite } = world;
    world.passes = ({ from, kind }) => !(from === impolite && kind === "offer");
    const linked = world.link();
    await world.until(() => world.of(impolite, "offer").length === 2); // the second when the polite side's offer came
    expect(world.of(polite, "offer")).toHaveLength(1);
    world.passes = () => true;
    for (const mail of world.of(impolite, "offer")) await world.deliver(mail);
    await linked;
    expect(world.isLinked).toBe(true);
    expect(world.of(polite, "answer")).toHaveLength(1);
    expect([impolite.ends.length, polite.ends.length]).toEqual([1, 2]); // the polite side's own attempt made way
  });

  it("goes by an offer sent once more where the first went to a process that is gone", async () => {
    world = await World.make();
    const { impolite, polite } = world;
    world.passes = (mail) => mail !== world.of(impolite, "offer")[0];
    await world.link();
    expect(world.isLinked).toBe(true);
    expect(impolite.ends).toHaveLength(1);
    expect(world.of(polite, "answer")).toHaveLength(1);
  });

  it("sends one offer four times at most, however often the other side offers", async () => {
    world = await World.make();
    const { impolite, polite } = world;
    world.passes = (mail) => mail === world.of(polite, "offer")[0];
    void world.link();
    await world.until(() => world.of(polite, "offer").length === 1);
    const [first] = world.of(polite, "offer") as [Mail];
    for (let i = 0; i < 6; i++) await world.deliver(await polite.again(first, impolite));
    await world.until(() => world.of(impolite, "offer").length >= 4);
    await world.deliver(world.of(impolite, "offer")[3] as Mail);
    await world.until(() => world.of(polite, "answer").length === 1);
    await world.deliver(await polite.again(world.of(polite, "answer")[0] as Mail, impolite)); // taken after all offers
    await world.until(() => world.isLinked);
    expect([world.of(impolite, "offer").length, impolite.ends.length]).toEqual([4, 1]);
  });

  for (const at of ["answered", "linked"] as const) {
    it(`is not disturbed by an offer that comes once more when it is ${at}`, async () => {
      world = await World.make();
      const { impolite, polite } = world;
      world.passes = ({ kind }) => at === "linked" || kind !== "answer";
      const linked = world.link();
      await world.until(() => (at === "linked" ? world.isLinked : world.of(polite, "answer").length === 1));
      await world.deliver(await impolite.again(world.of(impolite, "offer")[0] as Mail, polite));
      world.passes = () => true;
      if (at === "answered") await world.deliver(world.of(polite, "answer")[0] as Mail);
      await linked;
      await world.until(() => world.isLinked);
      expect([world.of(polite, "answer").length, impolite.ends.length, polite.ends.length]).toEqual([1, 1, 1]);
      expect([impolite.links, polite.links]).toEqual([[true], [true]]);
    });
  }

  it("goes by the polite side's offer where that gave up what it had answered", async () => {
    world = await World.make();
    const { impolite, polite } = world;
    world.passes = ({ kind }) => kind !== "answer";
    const linked = world.link();
    await world.until(() => world.of(polite, "answer").length === 1);
    (polite.ends[0] as End).fail();
    world.passes = () => true;
    await world.deliver(world.of(polite, "answer")[0] as Mail); // the impolite side checks, and nobody is there
    await linked;
    expect(world.isLinked).toBe(true);
    expect([impolite.ends.length, polite.ends.length]).toEqual([2, 2]);
  });

  it("goes on with a fresh connection where one was closed while it took the answer", async () => {
    world = await World.make();
    const { impolite, polite } = world;
    const linked = world.link();
    await world.until(() => impolite.ends.length === 1);
    const [end] = impolite.ends as [End];
    end.isStuck = true;
    await world.until(() => end.hasTaken);
    end.fail();
    (polite.ends[0] as End).fail();
    await linked;
    expect(world.isLinked).toBe(true);
    expect([impolite.links, polite.links]).toEqual([[true], [true]]);
  });

  it("loses no HELLO that a platform tells of before the channel's opening", async () => {
    world = await World.make();
    const { impolite, polite } = world;
    const linked = world.link();
    await world.until(() => impolite.ends.length === 1);
    (impolite.ends[0] as End).isDataFirst = true;
    await linked;
    await world.until(() => world.isLinked);
    impolite.mesh.send(polite.peerId, Kind.CONTROL, Uint8Array.of(1));
    expect([impolite.links, polite.links]).toEqual([[true], [true]]);
  });
});
