import { afterEach, describe, expect, it } from "vitest";
import type { Rtc } from "../../src/node/platform.js";
import { Switchboard } from "../../src/node/switchboard.js";
import { Identity } from "../../src/protocol/identity.js";

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
