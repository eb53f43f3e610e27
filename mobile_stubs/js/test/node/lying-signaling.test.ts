import { afterEach, describe, expect, it, vi } from "vitest";
import { SignalingUntrustedError, StorageError } from "../../src/node/errors.js";
import { Identity } from "../../src/protocol/identity.js";
import { offerBy, type Offered } from "./tiny-plan.js";
import { blobPart, FakeSignaling, MemoryStorage, named, offerMessage, TestNode } from "./world.js";

const nodes: TestNode[] = [];
afterEach(() => {
  for (const { node } of nodes.splice(0)) node.stop();
  vi.useRealTimers();
  vi.restoreAllMocks();
});

async function connect(...options: Parameters<typeof TestNode.connect>): Promise<TestNode> {
  const made = await TestNode.connect(...options);
  nodes.push(made);
  return made;
}

/** A node that is in a run and ready for its first round. */
async function joined(storage = new MemoryStorage(), offered?: Offered): Promise<{ test: TestNode; offered: Offered }> {
  const test = await connect({}, undefined, storage);
  const made = offered ?? (await offerBy(await Identity.generate()));
  test.server.offer(made);
  await test.server.until("ready");
  return { test, offered: made };
}

describe("a signaling server that lies about rounds", () => {
  const lies: [string, Record<string, unknown>, RegExp][] = [
    ["another model", { model_digest: "ab".repeat(32) }, /this node holds round 0/],
    ["a later round", { round: 2 }, /names round 2/],
    ["more attempts than the terms", { attempt: 4 }, /attempt 4 at round 1, terms say 3 at most/],
    ["another round id", { round_id: "ab".repeat(32) }, /is not that of the round/],
    ["a cohort without this peer", { members: ["11", "22", "33"].map((d) => ({ peer: d.repeat(32) })) }, /without this peer/],
  ];
  it.each(lies)("by %s is refused, told so, and heard again", async (_, lie, words) => {
    const { test, offered } = await joined();
    test.server.say(await named(test.node.peerId, offered, lie));
    expect((await test.server.until("round_failed")).reason).toMatch(words);
    expect(test.storage.journal).toEqual([]);
    await test.server.until("ready", 2);
  });

  it("by closing an attempt before it names it has no attempt", async () => {
    const { test, offered } = await joined();
    const start = await named(test.node.peerId, offered);
    test.server.say({ type: "round_aborted", run: offered.run, round: 1, attempt: 1, reason: "" });
    test.server.say(start);
    expect((await test.server.until("round_failed")).reason).toMatch(/is closed already/);
  });

  it("cannot go back to a round this node has left behind, even after a restart", async () => {
    const offered = await offerBy(await Identity.generate());
    const storage = new MemoryStorage();
    const model = new Uint8Array(12);
    storage.checkpoints.set(offered.run, { round: 1, reached: 3, digest: offered.modelDigest, model, local: new Uint8Array() });
    const test = await connect({}, undefined, storage);
    test.server.offer(offered); // whose status says round 0
    expect((await test.until("behind")).reason).toMatch(/goes back to round 1, this node finished 3/);
    test.server.say(await named(test.node.peerId, offered, { round: 2 }));
    expect((await test.server.until("round_failed")).reason).toMatch(/goes back to round 2, this node finished 3/);
  });

  it("cannot have one attempt joined twice", async () => {
    const { test, offered } = await joined();
    const start = await named(test.node.peerId, offered);
    test.storage.journal.push(`${String(start["round_id"])} joined`);
    test.server.say(start);
    expect((await test.server.until("round_failed")).reason).toMatch(/joined round id .* before/);
  });

  it("names cohorts of strangers to an owner who asks for known peers: the node leaves, with a receipt", async () => {
    const friend = (await Identity.generate()).peerId;
    const policy = { authors: "any", minCohort: 3, minSurvivors: 3, knownPeers: [friend], minKnownPeers: 1 } as const;
    const test = await connect({ policy });
    const offered = await offerBy(await Identity.generate());
    test.server.offer(offered);
    await test.server.until("ready");
    test.server.say(await named(test.node.peerId, offered));
    await test.server.until("withdraw");
    expect(await test.until("withdrawn")).toMatchObject({ run: offered.run, rule: "minKnownPeers" });
    const receipts = await test.node.receipts();
    expect(receipts.map(({ receipt }) => [receipt.decision, receipt.rule])).toEqual([
      ["accepted", "authors"],
      ["declined", "minKnownPeers"],
    ]);
    expect(test.storage.journal).toEqual([]);
  });
});

describe("a signaling server that breaks the protocol", () => {
  it("by an offer in the same breath as its welcome is served as usual", async () => {
    const server = await FakeSignaling.make();
    const offered = await offerBy(await Identity.generate());
    server.offer(offered); // nobody is connected yet
    server.greeting = [offerMessage(offered)];
    const test = await connect({}, server);
    await server.until("ready");
    expect(test.of("error")).toEqual([]);
  });

  it("by talking before its welcome is hung up on", async () => {
    const server = await FakeSignaling.make();
    server.interruption = Array.from({ length: 2 }, () => ({ type: "done", re: 1 }));
    await expect(connect({}, server)).rejects.toThrow(SignalingUntrustedError);
  });

  it("by a slice longer than what was asked for is left, before memory is taken", async () => {
    const test = await connect();
    const offered = await offerBy(await Identity.generate());
    test.server.answer = (request, say) => {
      if (request.type !== "get_blob") return false;
      const { digest } = request as unknown as { digest: string };
      const size = offered.blobs.get(digest)?.length;
      say({ type: "blob_slice", re: request.id, digest, offset: 0, length: 2 ** 31, size });
      return true;
    };
    test.server.offer(offered);
    expect((await test.until("error")).message).toMatch(/a slice of 2147483648 bytes, asked for were/);
    expect(test.told.some(({ name }) => name === "joined")).toBe(false);
  });

  it.each([
    ["no JSON", "{"],
    ["an unknown type", '{"type":"obey"}'],
    ["a surplus field", '{"type":"done","re":1,"more":1}'],
  ])("by %s is left with a named error", async (_, frame) => {
    const test = await connect();
    test.server.sockets.at(-1)?.onmessage?.({ data: frame });
    expect(await test.until("error")).toMatchObject({ code: "signaling-untrusted" });
  });

  it("by a blob part that nobody asked for is left", async () => {
    const test = await connect();
    test.server.sayBytes(blobPart("ab".repeat(32), 0, new Uint8Array(8)));
    expect(await test.until("error")).toMatchObject({ code: "signaling-untrusted" });
  });
});

describe("storage that denies", () => {
  it("an offer is not joined without a receipt", async () => {
    const test = await connect();
    test.storage.fail = new StorageError("the disk is full");
    const offered = await offerBy(await Identity.generate());
    test.server.offer(offered);
    expect(await test.until("error")).toMatchObject({ code: "storage-failed", message: "the disk is full" });
    expect((await test.server.until("decline")).reason).toBe("the disk is full");
  });

  it("a round is not begun, and the run is left", async () => {
    const { test, offered } = await joined();
    test.storage.fail = new StorageError("the disk is full");
    test.server.say(await named(test.node.peerId, offered));
    expect(await test.until("withdrawn")).toMatchObject({ rule: "storage", reason: "the disk is full" });
    await test.server.until("withdraw");
    expect((await test.server.until("round_failed")).reason).toBe("the disk is full");
  });
});

describe("a laptop that slept for a minute", () => {
  async function asleep(): Promise<{ test: TestNode; wakeUp: () => Promise<unknown> }> {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "setTimeout", "clearTimeout"] });
    const test = await connect();
    const clock = performance.now.bind(performance);
    vi.spyOn(performance, "now").mockImplementation(() => clock() + 60_000);
    return { test, wakeUp: () => vi.advanceTimersByTimeAsync(5_000) };
  }

  it("asks whether signaling is still there, and stays where it is", async () => {
    const { test, wakeUp } = await asleep();
    await wakeUp();
    await test.server.until("list_runs");
    await vi.advanceTimersByTimeAsync(20_000);
    expect(test.server.sockets).toHaveLength(1);
    expect(test.of("error")).toEqual([]);
  });

  it("dials anew where no answer comes, and registers again", async () => {
    const { test, wakeUp } = await asleep();
    test.server.isDeaf = true;
    await wakeUp();
    await vi.advanceTimersByTimeAsync(5_000);
    expect((await test.until("error")).message).toMatch(/no answer after this device slept/);
    test.server.isDeaf = false;
    await vi.advanceTimersByTimeAsync(200);
    await test.server.until("register", 2);
    expect(test.server.sockets).toHaveLength(2);
  });
});

describe("an abort signal", () => {
  it("ends a connect that waits for its welcome", async () => {
    const server = await FakeSignaling.make();
    server.isDeaf = true;
    const owner = new AbortController();
    const connecting = connect({ signal: owner.signal }, server);
    queueMicrotask(() => owner.abort());
    await expect(connecting).rejects.toThrow(/abort/i);
    expect(server.sockets.every(({ isClosed }) => isClosed)).toBe(true);
  });

  it("ends a join that waits for a blob; the offer stays", async () => {
    const test = await connect({ ask: true });
    const offered = await offerBy(await Identity.generate());
    test.server.answer = (request) => request.type === "get_blob";
    test.server.offer(offered);
    await test.until("offer");
    const owner = new AbortController();
    const joining = test.node.join(offered.run, { signal: owner.signal });
    await test.server.until("get_blob");
    owner.abort();
    await expect(joining).rejects.toThrow(/abort/i);
    test.server.answer = () => false;
    await test.node.join(offered.run);
    await test.server.until("ready");
  });

  it("ends the node and its events", async () => {
    const owner = new AbortController();
    const test = await connect({ signal: owner.signal });
    const events = test.node.events();
    owner.abort();
    expect(await events.next()).toEqual({ done: true, value: undefined });
    expect(await test.node.events().next()).toEqual({ done: true, value: undefined });
    expect(test.server.sockets.every(({ isClosed }) => isClosed)).toBe(true);
  });
});
