import { afterEach, describe, expect, it, vi } from "vitest";
import { Mesh } from "../../src/node/mesh.js";
import type { Rtc } from "../../src/node/platform.js";
import { Switchboard } from "../../src/node/switchboard.js";
import { Identity } from "../../src/protocol/identity.js";
import { named, TestNode } from "./world.js";

describe("what signaling could not deliver", () => {
  let switchboard: Switchboard;
  const peer = "22".repeat(32);
  const rtc: Rtc = {
    fingerprint: "ab".repeat(32),
    connect: () => {
      throw new Error("nobody is linked to here");
    },
  };

  afterEach(() => switchboard.close("the test is over"));

  for (const [code, expected] of [["peer-offline", [peer]], ["not-in-cohort", []]] as const) {
    it(`has a round ${expected.length > 0 ? "wait no longer" : "still wait"} for a link to the peer where the reason is ${code}`, async () => {
      const unreachable: string[] = [];
      switchboard = await Switchboard.create(await Identity.generate(), rtc, () => [], {
        onRoundMessage: () => undefined,
        onLink: () => undefined,
        onUnreachable: (gone) => unreachable.push(gone),
        onRefused: () => undefined,
        lookupModel: async () => null,
      });
      await switchboard.handle({ type: "relay_failed", to: peer, code });
      expect(unreachable).toEqual(expected);
    });
  }
});

describe("whether signaling has a session with a peer", () => {
  afterEach(() => void vi.restoreAllMocks());

  it("its link hears by name while a cohort is open, and by who is named in the next", async () => {
    const heard: [string, string][] = [];
    vi.spyOn(Mesh.prototype, "signalingLost").mockImplementation((peer) => void heard.push(["lost", peer]));
    vi.spyOn(Mesh.prototype, "signalingRegained").mockImplementation((peer) => void heard.push(["regained", peer]));
    const { node, server } = await TestNode.connect();
    const run = "ab".repeat(32);
    const start = await named(node.peerId, { run, modelDigest: "cd".repeat(32) }, { round: 2 });
    const members = (start as unknown as { members: { peer: string }[] }).members.map(({ peer }) => peer);
    const peer = members.find((member) => member !== node.peerId) as string;
    server.say({ type: "peer_gone", run, peer });
    server.say({ type: "peer_back", run, peer });
    server.say({ type: "peer_gone", run, peer });
    server.say(start);
    node.stop();
    const ofTheNext = members.map((member) => ["regained", member]);
    expect(heard).toEqual([["lost", peer], ["regained", peer], ["lost", peer], ...ofTheNext]);
  });
});
