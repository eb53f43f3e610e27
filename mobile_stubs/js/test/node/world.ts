/** One node with everything around it made up: a signaling server that may lie, storage and links in memory. */

import type { Checkpoint, Platform, Rtc, RtcConnection, Socket, Storage } from "../../src/node/platform.js";
import { Node, type NodeOptions } from "../../src/node/node.js";
import type { NodeEvent, NodeEventName } from "../../src/node/events.js";
import { concat, fromHex, toBase64, toHex, utf8 } from "../../src/protocol/bytes.js";
import { randomBytes, sha256 } from "../../src/protocol/crypto.js";
import { Identity } from "../../src/protocol/identity.js";
import { roundIdOf } from "../../src/secagg/parameters.js";
import { DATASET, type Offered } from "./tiny-plan.js";

type Bytes = Uint8Array<ArrayBuffer>;
type Message = Record<string, unknown> & { readonly type: string };
type Request = Message & { readonly id: number; readonly run: string };

/** Storage that forgets with the process; `fail` makes it deny everything. */
export class MemoryStorage implements Storage {
  readonly journal: string[] = [];
  readonly envelopes: Bytes[] = [];
  readonly checkpoints = new Map<string, Checkpoint>();
  fail: Error | null = null;

  async record(roundId: string, entry: string): Promise<void> {
    this.check();
    this.journal.push(`${roundId} ${entry}`);
  }
  async joined(roundId: string): Promise<boolean> {
    this.check();
    return this.journal.includes(`${roundId} joined`);
  }
  async saveCheckpoint(run: string, checkpoint: Checkpoint): Promise<void> {
    this.check();
    this.checkpoints.set(run, checkpoint);
  }
  async loadCheckpoint(run: string): Promise<Checkpoint | null> {
    return this.checkpoints.get(run) ?? null;
  }
  async saveReceipt(envelope: Bytes): Promise<void> {
    this.check();
    this.envelopes.push(envelope);
  }
  async receipts(): Promise<readonly Bytes[]> {
    return this.envelopes;
  }
  private check(): void {
    if (this.fail !== null) throw this.fail;
  }
}

/** A signaling server in memory. It answers what an honest one would; `answer` may be replaced by lies. */
export class FakeSignaling {
  readonly identity: Identity;
  readonly heard: Request[] = [];
  readonly blobs = new Map<string, Bytes>();
  /** What `get_run` and `accept` tell of each run. */
  readonly runs = new Map<string, Message>();
  sockets: FakeSocket[] = [];
  /** Sent right after the welcome. */
  greeting: Message[] = [];
  answer: (request: Request, say: (message: Message) => void) => boolean = () => false;
  /** Sent before the welcome, when the peer has proven who it is. */
  interruption: Message[] = [];
  isDeaf = false;
  private changed: () => void = () => {};

  private constructor(identity: Identity) {
    this.identity = identity;
  }

  static async make(): Promise<FakeSignaling> {
    return new FakeSignaling(await Identity.generate());
  }

  open(): Socket {
    const socket = new FakeSocket(this);
    this.sockets.push(socket);
    queueMicrotask(() => void this.challenge(socket));
    return socket;
  }

  /** To the newest connection. */
  say(message: Message): void {
    this.sockets.at(-1)?.deliver(message);
  }

  sayBytes(data: Bytes): void {
    this.sockets.at(-1)?.onmessage?.({ data: data.buffer });
  }

  /** Offer a run and serve its plan. */
  offer(offered: Offered): void {
    for (const [digest, data] of offered.blobs) this.blobs.set(digest, data);
    const { run, modelDigest } = offered;
    this.runs.set(run, status(run, modelDigest));
    this.say(offerMessage(offered));
  }

  /** Requests of a type, now or later, until there are so many. */
  async until(type: string, count = 1): Promise<Request> {
    for (;;) {
      const found = this.heard.filter((request) => request.type === type);
      if (found.length >= count) return found[count - 1] as Request;
      await new Promise<void>((resolve) => (this.changed = resolve));
    }
  }

  hear(text: string, socket: FakeSocket): void {
    const request = JSON.parse(text) as Request;
    if (this.isDeaf) return;
    if (request.type === "authenticate") void this.welcome(request, socket);
    else {
      this.heard.push(request);
      if (!this.answer(request, (message) => socket.deliver(message))) this.honestly(request, socket);
      this.changed();
    }
  }

  private async challenge(socket: FakeSocket): Promise<void> {
    socket.nonce = randomBytes(32);
    socket.deliver({ type: "challenge", versions: [1], nonce: toBase64(socket.nonce), server: this.identity.peerId, name: "fake" });
  }

  private async welcome(answer: Message, socket: FakeSocket): Promise<void> {
    const { peer, nonce, audience } = answer as unknown as { peer: string; nonce: string; audience: string };
    const transcript = concat(
      Uint8Array.of(1, 0, 0, 0),
      fromHex(this.identity.peerId),
      socket.nonce,
      fromHex(peer),
      Uint8Array.from(Buffer.from(nonce, "base64")),
      await sha256(utf8(audience)),
    );
    const signature = await this.identity.sign("peerplan/1/welcome", transcript);
    for (const message of this.interruption) socket.deliver(message);
    socket.deliver({ type: "welcome", signature: toBase64(signature) });
    for (const message of this.greeting) socket.deliver(message);
  }

  private honestly(request: Request, socket: FakeSocket): void {
    const re = request.id;
    if (request.type === "get_blob") {
      const { digest, offset, length } = request as unknown as { digest: string; offset: number; length: number };
      const data = this.blobs.get(digest) as Bytes;
      const part = data.slice(offset, offset + length);
      socket.deliver({ type: "blob_slice", re, digest, offset, length: part.length, size: data.length });
      socket.onmessage?.({ data: blobPart(digest, offset, part).buffer });
    } else if (request.type === "accept" || request.type === "get_run") {
      socket.deliver({ type: "run_reply", re, status: this.runs.get(request.run) });
    } else if (request.type === "list_runs") socket.deliver({ type: "runs", re, runs: [] });
    else socket.deliver({ type: "done", re });
  }
}

/** What tells a node of a run. */
export function offerMessage({ run, envelope, plan_envelope, modelDigest }: Offered): Message {
  return { type: "offer", run, envelope: json(envelope), plan_envelope: json(plan_envelope), round: 0, model_digest: modelDigest };
}

/** A frame of a blob's bytes. */
export function blobPart(digest: string, offset: number, part: Bytes): Bytes {
  const head = new Uint8Array(40);
  head.set(fromHex(digest));
  new DataView(head.buffer).setBigUint64(32, BigInt(offset), true);
  return concat(head, part);
}

/** Where a run stands. */
export function status(run: string, modelDigest: string, changes: Record<string, unknown> = {}): Message {
  const [plan, author] = ["11".repeat(32), "22".repeat(32)];
  const counts = { rounds: 5, round: 0, attempt: 0, accepted: 0, ready: 0, opened_at: 0 };
  return { run, plan, name: "run", author, state: "waiting", ...counts, model_digest: modelDigest, ...changes } as unknown as Message;
}

class FakeSocket {
  binaryType = "";
  nonce = new Uint8Array(32);
  onopen = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror = null;
  isClosed = false;

  constructor(private readonly server: FakeSignaling) {}

  deliver(message: Message): void {
    if (!this.isClosed) this.onmessage?.({ data: JSON.stringify(message) });
  }
  send(data: string): void {
    queueMicrotask(() => this.server.hear(data, this));
  }
  close(): void {
    this.isClosed = true;
  }
  /** The network takes the connection away. */
  drop(): void {
    this.isClosed = true;
    this.onclose?.({ code: 1006, reason: "" });
  }
}

/** Links that never come about. */
const RTC: Rtc = {
  fingerprint: "ab".repeat(32),
  connect: () => ({ createOffer: () => new Promise(() => {}), close: () => {} }) as unknown as RtcConnection,
};

/** A node of an owner who allows anybody, with what it told in order. */
export class TestNode {
  readonly told: NodeEvent[] = [];

  private constructor(
    readonly node: Node,
    readonly server: FakeSignaling,
    readonly storage: MemoryStorage,
  ) {}

  static async connect(
    options: Partial<NodeOptions> = {},
    server?: FakeSignaling,
    storage: MemoryStorage = new MemoryStorage(),
  ): Promise<TestNode> {
    const signaling = server ?? (await FakeSignaling.make());
    const platform: Platform = {
      openSocket: () => signaling.open(),
      createRtc: () => Promise.resolve(RTC),
      runtime: { load: () => Promise.reject(new Error("nothing is run here")), close: () => {} },
      storage,
      close: () => {},
    };
    const node = await Node.connect("ws://127.0.0.1:1", {
      identity: await Identity.generate(),
      platform,
      policy: { authors: "any", minCohort: 3, minSurvivors: 3 },
      datasets: [DATASET],
      ...options,
    });
    const made = new TestNode(node, signaling, storage);
    void made.read(node.events());
    return made;
  }

  /** Events of a name. */
  of<K extends NodeEventName>(name: K): Extract<NodeEvent, { name: K }>[] {
    return this.told.filter((event): event is Extract<NodeEvent, { name: K }> => event.name === name);
  }

  /** The first events of a name, now or later, until there are so many; the last of them. */
  async until<K extends NodeEventName>(name: K, count = 1): Promise<Extract<NodeEvent, { name: K }>> {
    for (;;) {
      const found = this.of(name);
      if (found.length >= count) return found[count - 1] as Extract<NodeEvent, { name: K }>;
      await new Promise<void>((resolve) => (this.changed = resolve));
    }
  }

  private changed: () => void = () => {};

  private async read(events: AsyncGenerator<NodeEvent, void, void>): Promise<void> {
    for await (const event of events) {
      this.told.push(event);
      this.changed();
    }
  }
}

/** A round with two strangers, round 1 unless changed, as signaling would name it. */
export async function named(
  own: string,
  { run, modelDigest }: Pick<Offered, "run" | "modelDigest">,
  changes: { readonly round?: number; readonly attempt?: number } & Record<string, unknown> = {},
): Promise<Message> {
  const strangers = await Promise.all([1, 2].map((n) => Identity.fromSeed(new Uint8Array(32).fill(n))));
  const peers = [own, ...strangers.map(({ peerId }) => peerId)].sort();
  const { round = 1, attempt = 1 } = changes;
  const roundId = toHex(await roundIdOf(run, round, attempt));
  const members = peers.map((peer) => ({ peer }));
  return { type: "round_start", run, round, attempt, round_id: roundId, model_digest: modelDigest, members, ...changes };
}

function json(envelope: Offered["envelope"]): unknown {
  const { payloadType, payload, signatures } = envelope;
  return {
    payloadType,
    payload: toBase64(payload),
    signatures: signatures.map(({ keyid, sig }) => ({ keyid, sig: toBase64(sig) })),
  };
}
