/** A mesh as full as it may be, of peers that came by themselves; connections that never open. */

import { afterEach, describe, expect, it } from "vitest";
import { Mesh } from "../../src/node/mesh.js";
import type { RtcConnection } from "../../src/node/platform.js";
import { LimitExceededError } from "../../src/protocol/errors.js";
import { Identity } from "../../src/protocol/identity.js";
import { type NegotiationKind, sealNegotiation } from "../../src/protocol/link/negotiation.js";

const MOST = 256;
const FINGERPRINT = "11".repeat(32);
const SDP = `v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=fingerprint:sha-256 ${(FINGERPRINT.match(/../g) as string[]).join(":")}\r\n`;

describe("a mesh that is full", () => {
  let mesh: Mesh;
  afterEach(() => mesh.close("the test is over"));

  async function fullMesh() {
    const identity = await Identity.generate();
    const closed: number[] = [];
    const sent: [string, NegotiationKind][] = [];
    let [made, tell] = [0, () => {}];
    const connect = (): RtcConnection => {
      const number = made++;
      return {
        maxMessageBytes: 65_536,
        bufferedBytes: 0,
        isOpen: false,
        createOffer: () => Promise.resolve(SDP),
        acceptOffer: () => Promise.resolve(SDP),
        acceptAnswer: () => Promise.resolve(),
        addCandidate: () => Promise.resolve(),
        remoteFingerprint: () => FINGERPRINT,
        send: () => {},
        close: () => void closed.push(number),
      };
    };
    mesh = new Mesh({
      identity,
      rtc: { fingerprint: FINGERPRINT, connect },
      iceServers: () => [],
      sendSignal: async (peer, kind) => {
        sent.push([peer, kind]);
        tell();
      },
      onMessage: () => {},
      onLink: () => {},
      onFault: () => {},
      mayLink: () => true,
    });
    const document = async (from: Identity, kind: NegotiationKind) => {
      const reply_to = kind === "offer" ? "" : "33".repeat(16);
      const ends = { from: from.peerId, to: identity.peerId, nonce: "22".repeat(16), reply_to };
      return sealNegotiation(from, { ...ends, kind, sequence: Date.now(), fingerprint: FINGERPRINT, body: SDP });
    };
    const comes = async () => {
      const other = await Identity.generate();
      await mesh.receiveSignal(other.peerId, "offer", await document(other, "offer"));
    };
    const until = async (count: number) => {
      while (sent.length < count) await new Promise<void>((resolve) => (tell = resolve));
    };
    for (let i = 0; i < MOST; i++) await comes();
    await until(MOST);
    return { closed, sent, document, comes, until };
  }

  it("has room for a peer that is wanted here, at the cost of one that is not", async () => {
    const { closed, sent, comes, until } = await fullMesh();
    await expect(comes()).rejects.toThrow(LimitExceededError);
    expect(closed).toEqual([]);
    const wanted = (await Identity.generate()).peerId;
    void mesh.connect([wanted], 60_000);
    await until(MOST + 1);
    expect([closed, sent.at(-1)]).toEqual([[0], [wanted, "offer"]]);
    await expect(comes()).rejects.toThrow(LimitExceededError);
  });

  it("has room also where it wanted all others, at the cost of the one wanted longest ago", async () => {
    const { closed, document, until } = await fullMesh();
    const others = await Promise.all(Array.from({ length: MOST + 1 }, () => Identity.generate()));
    const [first, second, ...rest] = others.map(({ peerId }) => peerId) as [string, string, ...string[]];
    const newcomer = rest.pop() as string;
    void mesh.connect([first, second, ...rest], 60_000); // of several at once each has its offer
    await until(2 * MOST);
    expect(closed).toHaveLength(MOST);
    void mesh.connect([first], 60_000);
    void mesh.connect([newcomer], 60_000);
    await until(2 * MOST + 1);
    expect(closed).toHaveLength(MOST + 1);
    await mesh.receiveSignal(first, "answer", await document(others[0] as Identity, "answer")); // an attempt is there
    const late = mesh.receiveSignal(second, "answer", await document(others[1] as Identity, "answer"));
    await expect(late).rejects.toThrow("no attempt waits");
    await expect(mesh.connect([first, second, ...rest, newcomer], 60_000)).rejects.toThrow("no room for more than 256");
  });
});
