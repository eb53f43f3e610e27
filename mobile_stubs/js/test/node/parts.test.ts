import { describe, expect, it, vi } from "vitest";
import { EarlyMessages } from "../../src/node/early.js";
import { PolicyError } from "../../src/node/errors.js";
import { EventHub } from "../../src/node/events.js";
import { matchesPattern } from "../../src/node/pattern.js";
import { judgeCohort, policyOf } from "../../src/node/policy.js";
import { Refusals } from "../../src/node/refusals.js";
import { type Port, workerRuntime, type WorkerReply, type WorkerRequest } from "../../src/node/worker-runtime.js";
import { readDataset } from "../../src/plans/dataset-source.js";

function message(tag: number, size = 20): Uint8Array<ArrayBuffer> {
  return new Uint8Array(size).fill(tag, 4, 12);
}
const tag = (value: number) => value.toString(16).padStart(2, "0").repeat(8);

describe("messages that come before their round", () => {
  it("are kept in order, and given once", () => {
    const early = new EarlyMessages();
    early.keep("a", message(1), false);
    early.keep("b", message(2), false);
    early.keep("a", message(1, 30), false);
    expect(early.take(tag(1)).map(({ peer, payload }) => [peer, payload.length])).toEqual([["a", 20], ["a", 30]]);
    expect(early.take(tag(1))).toEqual([]);
    expect(early.take(tag(2))).toHaveLength(1);
  });

  it("of one peer's flood take no other peer's place", () => {
    const early = new EarlyMessages();
    early.keep("honest", message(1), false);
    for (let i = 0; i < 10_000; i++) early.keep("hostile", message(i % 200), false);
    expect(early.take(tag(1)).some(({ peer }) => peer === "honest")).toBe(true);
    const left = Array.from({ length: 200 }, (_, i) => early.take(tag(i)).length).reduce((a, b) => a + b);
    expect(left).toBeLessThanOrEqual(32);
  });

  it("are dropped where they are too large to come first", () => {
    const early = new EarlyMessages();
    early.keep("a", message(1, 1025), false);
    early.keep("a", message(1), true);
    expect(early.take(tag(1))).toEqual([]);
  });
});

describe("refused messages", () => {
  it("of one peer's flood are told of a few times, and of another peer's still", () => {
    const refusals = new Refusals();
    const told = Array.from({ length: 10_000 }, () => refusals.mayTell("hostile")).filter(Boolean).length;
    expect(told).toBe(64);
    expect(refusals.mayTell("honest")).toBe(true);
    refusals.clear();
    expect(refusals.mayTell("hostile")).toBe(true);
  });
});

describe("patterns", () => {
  it.each([
    ["digits", "digits", true],
    ["digits", "dig*", true],
    ["digits", "dig", false],
    ["a.b", "a?b", true],
    ["axb", "a.b", false],
    ["clinic/mlp", "clinic/*", true],
    ["v1", "v[0-9]", true],
    ["vx", "v[!0-9]", true],
    ["v1", "v[!0-9]", false],
    ["v-", "v[a-]", true],
    ["v", "v[z-a]", false],
    ["vx", "v[!z-a]", true],
    ["[x", "[x", true],
    ["a]b", "a[]]b", true],
    ["a+b", "a+b", true],
    ["a|b", "a|c", false],
  ])("%s against %s", (name, pattern, expected) => {
    expect(matchesPattern(name, pattern)).toBe(expected);
  });

  it("of many stars take no time to speak of", () => {
    expect(matchesPattern("a".repeat(128), `${"*".repeat(2000)}b`)).toBe(false);
  });
});

describe("a policy", () => {
  it.each([
    [{ minCohrt: 3 }, /unknown rule "minCohrt"/],
    [{ minCohort: 2 }, /minCohort is 2, expected 3 to 64/],
    [{ maxRounds: Number.NaN }, /maxRounds is NaN/],
    [{ authors: ["me"] }, /"me" is no peer id/],
    [{ minKnownPeers: 1 }, /minKnownPeers asks for 1, knownPeers lists 0/],
  ])("%j is refused", (changes, words) => {
    expect(() => policyOf(changes as never)).toThrow(PolicyError);
    expect(() => policyOf(changes as never)).toThrow(words);
  });

  it("counts known peers of a cohort, and not the node itself", () => {
    const [own, friend, stranger] = ["11", "22", "33"].map((digits) => digits.repeat(32)) as [string, string, string];
    const policy = policyOf({ knownPeers: [own, friend], minKnownPeers: 1 });
    expect(judgeCohort(policy, [own, friend, stranger], own)).toBeNull();
    expect(judgeCohort(policy, [own, stranger], own)).toMatch(/of 1 other peers in the cohort 0 are known/);
  });
});

describe("events", () => {
  it("reach every listener and reader though one listener throws, and its error is not lost", async () => {
    const hub = new EventHub();
    const thrown: (() => void)[] = [];
    vi.stubGlobal("queueMicrotask", (later: () => void) => thrown.push(later));
    const events = hub.events();
    const heard: string[] = [];
    hub.on("ready", () => {
      throw new Error("the owner's mistake");
    });
    hub.on("ready", ({ run }) => heard.push(run));
    hub.tell("ready", { run: "r", round: 1 });
    vi.unstubAllGlobals();
    expect(heard).toEqual(["r"]);
    expect((await events.next()).value).toMatchObject({ name: "ready", run: "r" });
    expect(thrown).toHaveLength(1);
    expect(thrown[0]).toThrow("the owner's mistake");
  });

  it("of progress that nobody reads take one place for each stage", async () => {
    const hub = new EventHub();
    const events = hub.events();
    for (let done = 1; done <= 1000; done++) hub.tell("progress", { run: "r", round: 1, stage: "train", done, total: 1000 });
    hub.tell("progress", { run: "r", round: 1, stage: "share", done: 1, total: 1 });
    hub.close();
    const read = [];
    for await (const event of events) read.push(event);
    expect(read.map((event) => event.name === "progress" && [event.stage, event.done])).toEqual([["train", 1000], ["share", 1]]);
  });
});

describe("ONNX Runtime in a worker", () => {
  class TestPort implements Port {
    isClosed = false;
    private reply: (reply: WorkerReply) => void = () => {};
    constructor(private readonly work: (request: WorkerRequest) => WorkerReply | null) {}
    post(request: WorkerRequest): void {
      const reply = this.work(request);
      if (reply !== null) queueMicrotask(() => this.reply(reply));
    }
    listen(onReply: (reply: WorkerReply) => void): void {
      this.reply = onReply;
    }
    close(): void {
      this.isClosed = true;
    }
  }

  it("is ended where a call fails, as its memory never shrinks, and made anew for the next graph", async () => {
    const ports: TestPort[] = [];
    const runtime = workerRuntime(() => {
      const port = new TestPort(({ id, do: what }) =>
        what === "run" && ports.length === 1 ? { id, error: "std::bad_alloc" } : { id, value: id },
      );
      ports.push(port);
      return port;
    });
    const [harmful, honest] = [await runtime.load(new Uint8Array(1)), await runtime.load(new Uint8Array(1))];
    const waiting = [harmful.run({}), honest.run({})];
    await expect(waiting[0]).rejects.toThrow("std::bad_alloc");
    await expect(waiting[1]).rejects.toThrow("as another call in it failed");
    expect(ports[0]?.isClosed).toBe(true);
    expect([harmful.isOver, honest.isOver]).toEqual([true, true]);
    expect(await (await runtime.load(new Uint8Array(1))).run({})).toBeDefined();
    expect(ports).toHaveLength(2);
  });

  it("is ended where a plan computes without end, and made anew for the next graph", async () => {
    const ports: TestPort[] = [];
    const runtime = workerRuntime(() => {
      const port = new TestPort((request) => (request.do === "run" ? null : { id: request.id, value: request.id }));
      ports.push(port);
      return port;
    }, 20);
    const session = await runtime.load(new Uint8Array(1));
    await expect(session.run({})).rejects.toThrow(/took longer than 0.02 s and was stopped/);
    expect(ports[0]?.isClosed).toBe(true);
    expect(session.isOver).toBe(true);
    expect((await runtime.load(new Uint8Array(1))).isOver).toBe(false);
    expect(ports).toHaveLength(2);
  });
});

describe("a dataset that arrives in batches", () => {
  const fields = { x: { dtype: "float32", shape: [2] }, y: { dtype: "int64", shape: [], below: 10 } } as const;
  const batch = (rows: number, from = 0) => ({
    x: Float32Array.from({ length: 2 * rows }, (_, i) => from + i),
    y: BigInt64Array.from({ length: rows }, () => 3n),
  });

  it("is read to its end, in order", async () => {
    async function* batches() {
      yield batch(2);
      yield batch(1, 100);
    }
    const made = await readDataset({ name: "d", fields, batches, heldOut: 1 });
    expect(made.heldOut).toBe(1);
    expect([...(made.fields["x"]?.data as Float32Array)]).toEqual([0, 1, 2, 3, 100, 101]);
    expect(made.fields["y"]).toMatchObject({ dtype: "int64", below: 10 });
  });

  it("may fill one array again and again", async () => {
    const one = new Float32Array(2);
    function* batches() {
      for (const value of [1, 2]) yield { x: one.fill(value) };
    }
    const made = await readDataset({ name: "d", fields: { x: fields.x }, batches });
    expect([...(made.fields["x"]?.data as Float32Array)]).toEqual([1, 1, 2, 2]);
  });

  it("without end is closed at its bound", async () => {
    let isClosed = false;
    async function* batches() {
      try {
        for (;;) yield batch(100);
      } finally {
        isClosed = true;
      }
    }
    await expect(readDataset({ name: "d", fields, batches, maxBytes: 10_000 })).rejects.toThrow(/more than 10000 bytes/);
    expect(isClosed).toBe(true);
  });

  it("is called off by a signal", async () => {
    const owner = new AbortController();
    async function* batches() {
      for (;;) {
        yield batch(1);
        owner.abort();
      }
    }
    await expect(readDataset({ name: "d", fields, batches }, owner.signal)).rejects.toThrow(/abort/i);
  });

  it.each([
    ["a missing field", { x: new Float32Array(2) }, /batch 1: field y is missing/],
    ["a surplus field", { ...batch(1), z: new Float32Array(1) }, /field z is not declared/],
    ["another array", { ...batch(1), y: new Float32Array(1) }, /int64 takes another array/],
    ["half an example", { x: new Float32Array(3), y: new BigInt64Array(1) }, /no whole examples/],
    ["unequal fields", { x: new Float32Array(4), y: new BigInt64Array(1) }, /field y has 1 examples, the others 2/],
  ])("with %s is refused", async (_, bad, words) => {
    await expect(readDataset({ name: "d", fields, batches: () => [bad] })).rejects.toThrow(words);
  });
});
