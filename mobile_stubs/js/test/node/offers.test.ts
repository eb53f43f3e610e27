import { afterEach, describe, expect, it } from "vitest";
import type { Device, Objection } from "../../src/node/device.js";
import { NotNowError } from "../../src/node/errors.js";
import { openReceipt } from "../../src/node/receipts.js";
import { Identity } from "../../src/protocol/identity.js";
import { offerBy } from "./tiny-plan.js";
import { named, TestNode } from "./world.js";

const nodes: TestNode[] = [];
afterEach(() => {
  for (const { node } of nodes.splice(0)) node.stop();
});

async function connect(...options: Parameters<typeof TestNode.connect>): Promise<TestNode> {
  const made = await TestNode.connect(...options);
  nodes.push(made);
  return made;
}

/** A device whose owner's rules say what the test says. */
class TestDevice implements Device {
  objection: Objection | null = null;
  asked = 0;
  private readonly listeners = new Set<() => void>();

  async whyNotNow(): Promise<Objection | null> {
    this.asked++;
    return this.objection;
  }
  onChange(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
  change(objection: Objection | null): void {
    this.objection = objection;
    for (const listener of this.listeners) listener();
  }
}

const HIDDEN: Objection = { rule: "hidden", reason: "the page is hidden" };

describe("an offer", () => {
  it("that the policy accepts is joined, with a signed receipt of the decision", async () => {
    const { node, server, ...rest } = await connect();
    const offered = await offerBy(await Identity.generate());
    server.offer(offered);
    await server.until("ready");
    const [kept] = await node.receipts();
    expect(kept?.receipt).toMatchObject({ run: offered.run, decision: "accepted", rule: "authors", dataset: "points" });
    expect(rest.storage.envelopes).toHaveLength(1);
    await expect(openReceipt(kept?.envelope as never, "ab".repeat(32))).rejects.toThrow(/signed by/);
  });

  it("by an author who is not allowed is declined, with the rule in receipt and event", async () => {
    const test = await connect({ policy: { authors: ["ab".repeat(32)] } });
    test.server.offer(await offerBy(await Identity.generate()));
    const { reason } = await test.server.until("decline");
    expect(reason).toMatch(/is not allowed \(policy allows 1 authors\)/);
    expect((await test.node.receipts())[0]?.receipt).toMatchObject({ decision: "declined", rule: "authors" });
    expect((await test.until("offer")).verdict).toMatchObject({ accepted: false, rule: "authors" });
  });

  it("with terms of one author and a plan of another is refused", async () => {
    const test = await connect();
    const [mine, theirs] = [await offerBy(await Identity.generate()), await offerBy(await Identity.generate())];
    test.server.offer({ ...mine, plan_envelope: theirs.plan_envelope });
    expect((await test.until("error")).message).toMatch(/do not belong together/);
    await test.server.until("decline");
    expect(await test.node.receipts()).toEqual([]);
  });

  it("whose blob has other bytes than its name is refused, and another one is looked at", async () => {
    const test = await connect();
    const bad = await offerBy(await Identity.generate());
    const changed = new Map([...bad.blobs].map(([digest, data]) => [digest, data.map((value) => value ^ 1)]));
    test.server.offer({ ...bad, blobs: changed });
    expect(await test.until("error")).toMatchObject({ code: "unsafe-plan", run: bad.run });
    const good = await offerBy(await Identity.generate());
    test.server.offer({ ...good, blobs: new Map([...bad.blobs, ...good.blobs]) });
    expect((await test.until("joined")).run).toBe(good.run);
  });

  it("waits for the owner who is asked, and for no more than sixty-four at once", async () => {
    const test = await connect({ ask: true });
    const author = await Identity.generate();
    for (let i = 0; i < 66; i++) test.server.offer(await offerBy(author));
    expect(await test.until("error", 2)).toMatchObject({ code: "limit-exceeded" });
    const { run } = await test.until("offer", 64);
    await test.node.decline(run, "not this one");
    expect((await test.node.receipts())[0]?.receipt).toMatchObject({ decision: "declined", rule: "owner", reason: "not this one" });
    await expect(test.node.join(run)).rejects.toThrow(/was not offered/);
    expect(test.of("joined")).toEqual([]);
  });
});

describe("device rules", () => {
  it("put an offer off until they allow it, and say which rule it was", async () => {
    const device = new TestDevice();
    const test = await connect({ device });
    device.objection = HIDDEN;
    const offered = await offerBy(await Identity.generate());
    test.server.offer(offered);
    expect(await test.until("waiting")).toMatchObject({ run: offered.run, ...HIDDEN });
    expect(test.server.heard.map(({ type }) => type)).toEqual(["register"]);
    device.change(null);
    await test.server.until("ready");
    expect(test.of("error")).toEqual([]);
  });

  it("tell a person who joins anyway, and keep the offer", async () => {
    const device = new TestDevice();
    const test = await connect({ device, ask: true });
    device.objection = HIDDEN;
    const offered = await offerBy(await Identity.generate());
    test.server.offer(offered);
    await test.until("offer");
    await expect(test.node.join(offered.run)).rejects.toThrow(NotNowError);
    device.objection = null;
    await test.node.join(offered.run);
    await test.server.until("ready");
  });

  it("take consent back when a round is named, and give it again by themselves", async () => {
    const device = new TestDevice();
    const test = await connect({ device });
    const offered = await offerBy(await Identity.generate());
    test.server.offer(offered);
    await test.server.until("ready");
    device.objection = HIDDEN;
    test.server.say(await named(test.node.peerId, offered));
    expect((await test.server.until("round_failed")).reason).toBe("not now: the page is hidden");
    await test.server.until("withdraw");
    expect(test.storage.journal).toEqual([]);
    expect(test.of("round")).toEqual([]);
    test.server.offer(offered); // as after a reconnect
    test.server.offer(await offerBy(await Identity.generate(), {}, "another"));
    await test.until("waiting", 2); // the other run was looked at after it
    expect(test.server.heard.filter(({ type }) => type === "accept")).toHaveLength(1);
    device.change(null);
    await test.server.until("accept", 3);
    await test.server.until("ready", 3);
  });
});
