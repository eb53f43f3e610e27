import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { OfferedIceServers } from "../src/join/ice-servers.js";

const stun = { urls: ["stun:stun.example:3478"] };
const turn = (username: string) => ({ urls: ["turn:turn.example:3478?transport=tcp", "turns:[::1]:5349"], username, credential: `of ${username}` });

/** What the server answers, one after the other: a document, a status, or an error. */
function answers(...given: unknown[]) {
  const asked = vi.fn(async (_url: URL, _options: RequestInit) => {
    const next = given.shift();
    if (next instanceof Error) throw next;
    return typeof next === "number" ? new Response("", { status: next }) : new Response(JSON.stringify(next));
  });
  vi.stubGlobal("fetch", asked);
  return asked;
}

function page() {
  const told: string[][] = [];
  const problems: string[] = [];
  const ice = new OfferedIceServers((hosts) => told.push([...hosts]), (reason) => problems.push(reason));
  return { ice, told, problems };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("STUN and TURN servers that the page's server names", () => {
  it("are asked for past every cache, and hosts are told", async () => {
    const asked = answers({ ice_servers: [stun, turn("ann")], lifetime_s: 3600 });
    const { ice, told, problems } = page();
    await ice.load();
    expect(asked.mock.calls.map(([url, options]) => [url.href.endsWith("/join/ice-servers.json"), options])).toEqual([
      [true, { cache: "no-store", signal: expect.any(AbortSignal) }],
    ]);
    expect(ice.servers).toEqual([stun, turn("ann")]);
    expect([told, problems]).toEqual([[["stun.example", "turn.example", "[::1]"]], []]);
  });

  it("are asked for again at half of what credentials last, and not where nothing expires", async () => {
    const asked = answers({ ice_servers: [turn("ann")], lifetime_s: 3600 }, { ice_servers: [turn("bob")], lifetime_s: null });
    const { ice } = page();
    await ice.load();
    await vi.advanceTimersByTimeAsync(1_799_000);
    expect([asked.mock.calls.length, ice.servers]).toEqual([1, [turn("ann")]]);
    await vi.advanceTimersByTimeAsync(1_000);
    expect([asked.mock.calls.length, ice.servers]).toEqual([2, [turn("bob")]]);
    await vi.advanceTimersByTimeAsync(1e9);
    expect(asked).toHaveBeenCalledTimes(2);
  });

  it("do not keep the page waiting for a server that says nothing", async () => {
    const late = new AbortController();
    const timeout = vi.spyOn(AbortSignal, "timeout").mockReturnValue(late.signal);
    vi.stubGlobal("fetch", (_url: URL, { signal }: RequestInit) => {
      return new Promise((_resolve, reject) => signal?.addEventListener("abort", () => reject(signal.reason as Error)));
    });
    const { ice, problems } = page();
    const loaded = ice.load();
    late.abort(new Error("it took too long"));
    await loaded;
    expect([timeout.mock.calls, problems]).toEqual([[[10_000]], ["it took too long"]]);
    timeout.mockRestore();
  });

  it("stay what they were while the server cannot be asked, and it is asked again in a minute", async () => {
    answers({ ice_servers: [turn("ann")], lifetime_s: 3600 }, 503, new TypeError("network"), { ice_servers: [stun], lifetime_s: null });
    const { ice, told, problems } = page();
    await ice.load();
    await vi.advanceTimersByTimeAsync(1_800_000);
    expect([problems, ice.servers]).toEqual([["HTTP 503"], [turn("ann")]]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect([problems.at(-1), ice.servers]).toEqual(["network", [turn("ann")]]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect([problems.length, told.at(-1), ice.servers]).toEqual([2, ["stun.example"], [stun]]);
  });

  it.each([
    ["another scheme", { ice_servers: [{ urls: ["https://example.org"] }], lifetime_s: null }],
    ["no address", { ice_servers: [{ urls: [] }], lifetime_s: null }],
    ["too many servers", { ice_servers: Array.from({ length: 9 }, () => stun), lifetime_s: null }],
    ["no lifetime", { ice_servers: [stun] }],
    ["a lifetime of no time", { ice_servers: [turn("ann")], lifetime_s: 0 }],
    ["something unknown", { ice_servers: [{ ...stun, policy: "all" }], lifetime_s: null }],
    ["too much text", { ice_servers: [{ urls: Array.from({ length: 4 }, () => `stun:${"x".repeat(9_000)}`) }], lifetime_s: null }],
  ])("are refused with a reason: %s", async (_, document) => {
    answers(document);
    const { ice, told, problems } = page();
    await ice.load();
    expect([ice.servers, told, problems.length]).toEqual([[], [], 1]);
  });
});
