import { describe, expect, it } from "vitest";
import { utf8 } from "../src/protocol/bytes.js";
import { LimitExceededError, LinkError, SignatureError } from "../src/protocol/errors.js";
import { Identity } from "../src/protocol/identity.js";
import { FrameDecoder, FrameEncoder, Kind, OutgoingMessage } from "../src/protocol/link/framing.js";
import { type LinkView, sealHello, verifyHello } from "../src/protocol/link/hello.js";
import { fingerprintIn, type Negotiation, onlySha256, openNegotiation, ReplayGuard, sealNegotiation } from "../src/protocol/link/negotiation.js";

const LIMITS = { bulkBytes: 1 << 20, modelBytes: 1 << 20 };
const DIGITS = "AB".repeat(32).match(/../g)?.join(":") as string;
const SDP = `v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=fingerprint:sha-256 ${DIGITS}\r\n`;

function bytes(size: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: size }, (_, i) => i * 7);
}

describe("frames", () => {
  for (const size of [1, 1000, 65_524, 65_525, 200_000]) {
    it(`a message of ${size} bytes comes out as it went in`, () => {
      const [encoder, decoder] = [new FrameEncoder(), new FrameDecoder(LIMITS)];
      const message = new OutgoingMessage(Kind.BULK, bytes(size));
      let found = null;
      while (!message.isFinished) {
        expect(found).toBeNull();
        const frame = encoder.frame(message);
        expect(frame.length).toBeLessThanOrEqual(65_536);
        found = decoder.receive(frame);
      }
      expect(found).toEqual({ kind: Kind.BULK, payload: bytes(size) });
    });
  }

  it("a vote passes between the frames of a chunk", () => {
    const [encoder, decoder] = [new FrameEncoder(), new FrameDecoder(LIMITS)];
    const chunk = new OutgoingMessage(Kind.BULK, bytes(100_000));
    expect(decoder.receive(encoder.frame(chunk))).toBeNull();
    expect(decoder.receive(encoder.frame(new OutgoingMessage(Kind.CONTROL, utf8("vote"))))?.kind).toBe(Kind.CONTROL);
    expect(decoder.receive(encoder.frame(chunk))?.payload.length).toBe(100_000);
    expect(() => encoder.frame(new OutgoingMessage(Kind.BULK, new Uint8Array(0)))).toThrow(LinkError);
  });

  const first = () => new FrameEncoder().frame(new OutgoingMessage(Kind.CONTROL, utf8("hello")));
  const broken: Record<string, (frame: Uint8Array) => Uint8Array> = {
    "another version": (f) => f.fill(0x22, 0, 1),
    "a kind that does not exist": (f) => f.fill(0x17, 0, 1),
    "reserved flags": (f) => f.fill(7, 1, 2),
    "reserved bytes": (f) => f.fill(1, 2, 3),
    "a number that is not next": (f) => f.fill(1, 4, 5),
    "a total beyond what came": (f) => f.fill(9, 8, 9),
    "a total below what came": (f) => f.fill(1, 8, 9),
    "no payload": (f) => f.slice(0, 12),
    "a header cut short": (f) => f.slice(0, 7),
    "a continuation of nothing": (f) => f.fill(2, 1, 2),
    "a first frame that is short and not last": (f) => f.fill(1, 1, 2),
  };
  for (const [name, change] of Object.entries(broken)) {
    it(`${name} ends the link`, () => {
      expect(() => new FrameDecoder(LIMITS).receive(change(first()) as never)).toThrow(LinkError);
    });
  }

  it("takes no memory for more than a kind may have", () => {
    const frame = new FrameEncoder().frame(new OutgoingMessage(Kind.BULK, bytes(2000)));
    expect(() => new FrameDecoder({ bulkBytes: 1999, modelBytes: 0 }).receive(frame)).toThrow(LimitExceededError);
    expect(() => new FrameDecoder({ bulkBytes: 0, modelBytes: 0 }).receive(frame)).toThrow(LimitExceededError);
  });
});

describe("HELLO", () => {
  it("is accepted by the other side's view alone", async () => {
    const [a, b] = [await Identity.generate(), await Identity.generate()];
    const view: LinkView = {
      local: a.peerId,
      remote: b.peerId,
      localFingerprint: "11".repeat(32),
      remoteFingerprint: "22".repeat(32),
      localNonce: "33".repeat(16),
      remoteNonce: "44".repeat(16),
    };
    const theirs: LinkView = {
      local: b.peerId,
      remote: a.peerId,
      localFingerprint: view.remoteFingerprint,
      remoteFingerprint: view.localFingerprint,
      localNonce: view.remoteNonce,
      remoteNonce: view.localNonce,
    };
    const hello = await sealHello(a, view);
    await verifyHello(hello, theirs);
    await expect(verifyHello(hello, view)).rejects.toThrow(LinkError);
    await expect(verifyHello(hello, { ...theirs, remoteFingerprint: "55".repeat(32) })).rejects.toThrow(/sender's fingerprint/);
    await expect(verifyHello(hello, { ...theirs, localNonce: "66".repeat(16) })).rejects.toThrow(/receiver's nonce/);
    await expect(verifyHello(await sealHello(b, view), theirs)).rejects.toThrow(SignatureError);
    await expect(verifyHello(hello.slice(1), theirs)).rejects.toThrow(LinkError);
  });
});

describe("negotiation", () => {
  const document = (from: string, to: string, changes: Partial<Negotiation> = {}): Negotiation => ({
    kind: "offer",
    from,
    to,
    nonce: "ab".repeat(16),
    reply_to: "",
    sequence: 1000,
    fingerprint: "ab".repeat(32),
    body: SDP,
    ...changes,
  });

  it("a document is taken from its signer, for its receiver, as its kind, with its own fingerprint", async () => {
    const [a, b] = [await Identity.generate(), await Identity.generate()];
    const expected = { sender: a.peerId, receiver: b.peerId, kind: "offer" };
    const open = async (changes: Partial<Negotiation>, signer = a, as = expected) =>
      openNegotiation(await sealNegotiation(signer, document(a.peerId, b.peerId, changes)), as);
    expect((await open({})).sequence).toBe(1000);
    await expect(open({}, b)).rejects.toThrow(SignatureError);
    await expect(open({}, a, { ...expected, kind: "answer" })).rejects.toThrow(LinkError);
    await expect(open({ to: a.peerId })).rejects.toThrow(LinkError);
    await expect(open({ fingerprint: "cd".repeat(32) })).rejects.toThrow(/signed fingerprint/);
    await expect(open({ reply_to: "ab".repeat(16) })).rejects.toThrow(LinkError);
    await expect(open({ body: `${SDP}m=audio 9 RTP 0\r\n` })).rejects.toThrow(/1 section/);
  });

  it("a replayed or dated document is refused", () => {
    const guard = new ReplayGuard();
    const one = document("a".repeat(64), "b".repeat(64));
    guard.admit(one, 1000);
    expect(() => guard.admit(one, 1000)).toThrow(/replayed/);
    guard.admit({ ...one, sequence: 1001 }, 1000);
    expect(() => guard.admit({ ...one, sequence: 2_000_000 }, 1000)).toThrow(/from now/);
  });

  it("fingerprints are sha-256, one, and the same everywhere", () => {
    expect(fingerprintIn(SDP)).toBe("ab".repeat(32));
    expect(() => fingerprintIn(SDP.replace("sha-256", "sha-1"))).toThrow(LinkError);
    expect(() => fingerprintIn("v=0\r\n")).toThrow(LinkError);
    expect(() => fingerprintIn(SDP + SDP.replaceAll("AB", "CD"))).toThrow(LinkError);
    expect(onlySha256(`${SDP}a=fingerprint:sha-512 00\r\n`)).toBe(SDP);
  });
});
