/** One link over a channel in memory that closes, or is not read, when the test says so. */

import { describe, expect, it } from "vitest";
import { Link, type LinkEvents } from "../../src/node/link.js";
import type { RtcConnection } from "../../src/node/platform.js";
import type { Bytes } from "../../src/protocol/bytes.js";
import { LimitExceededError } from "../../src/protocol/errors.js";
import { Identity } from "../../src/protocol/identity.js";
import { FrameEncoder, Kind, OutgoingMessage } from "../../src/protocol/link/framing.js";
import { type LinkView, sealHello } from "../../src/protocol/link/hello.js";

const SILENT_MS = 800;

/** Says that it is open and takes nothing: the other side has just closed it, or reads nothing. */
class Channel implements RtcConnection {
  readonly maxMessageBytes = 65_536;
  bufferedBytes = 0;
  isOpen = true;
  isGone = false;
  isClosed = false;

  send(): void {
    if (this.isGone) throw new Error("Sending failed, errno=32");
  }
  close(): void {
    this.isClosed = true;
    this.isOpen = false;
  }
  createOffer = (): Promise<string> => Promise.reject(new Error("not here"));
  acceptOffer = this.createOffer;
  acceptAnswer = (): Promise<void> => Promise.reject(new Error("not here"));
  addCandidate = this.acceptAnswer;
  remoteFingerprint = (): string => "22".repeat(32);
}

async function readyLink() {
  const [here, there] = [await Identity.generate(), await Identity.generate()];
  const view: LinkView = {
    local: here.peerId,
    remote: there.peerId,
    localFingerprint: "11".repeat(32),
    remoteFingerprint: "22".repeat(32),
    localNonce: "33".repeat(16),
    remoteNonce: "44".repeat(16),
  };
  const theirs: LinkView = {
    local: view.remote,
    remote: view.local,
    localFingerprint: view.remoteFingerprint,
    remoteFingerprint: view.localFingerprint,
    localNonce: view.remoteNonce,
    remoteNonce: view.localNonce,
  };
  const channel = new Channel();
  const ends: [string, boolean][] = [];
  let link: Link | undefined;
  await new Promise<void>((resolve, reject) => {
    const events: LinkEvents = {
      onReady: resolve,
      onMessage: () => {},
      onEnd: (reason, retry) => ends.push([reason, retry]),
      onFault: (reason) => reject(new Error(reason)),
    };
    link = new Link(channel, view, { bulkBytes: 1 << 20, modelBytes: 1 << 20 }, { sent: 0, received: 0 }, events);
    const made = link;
    void (async () => {
      await made.greet(here);
      made.receive(new FrameEncoder().frame(new OutgoingMessage(Kind.HELLO, await sealHello(there, theirs))));
    })();
  });
  return { link: link as Link, channel, ends, view };
}

describe("a link over a channel that takes nothing", () => {
  const uses: Record<string, (link: Link, channel: Channel) => void> = {
    "a message is sent": (link) => link.send(Kind.CONTROL, Uint8Array.of(1)),
    "the channel asks for more": (link, channel) => {
      channel.isGone = false;
      channel.bufferedBytes = 1 << 20;
      link.send(Kind.BULK, new Uint8Array(100_000));
      channel.isGone = true;
      channel.bufferedBytes = 0;
      link.writable();
    },
    "it is the time to ask for a sign of life": (link) => link.tick(link.lastHeard + SILENT_MS),
  };
  for (const [name, use] of Object.entries(uses)) {
    it(`ends, and no more, where the other side closed it just before ${name}`, async () => {
      const { link, channel, ends } = await readyLink();
      channel.isGone = true;
      use(link, channel);
      expect(ends).toEqual([[expect.stringContaining("errno=32"), true]]);
      expect(channel.isClosed).toBe(true);
    });
  }

  it("says goodbye to nobody where the other side closed it just before", async () => {
    const { link, channel, ends } = await readyLink();
    channel.isGone = true;
    link.close("the owner stopped the node");
    expect(ends).toEqual([[expect.stringContaining("errno=32"), false]]);
  });

  it("fails what waits to be drained when it ends so", async () => {
    const { link, channel } = await readyLink();
    channel.bufferedBytes = 1 << 20;
    link.send(Kind.BULK, new Uint8Array(10));
    const drained = link.drain();
    channel.isGone = true;
    channel.bufferedBytes = 0;
    link.writable();
    await expect(drained).rejects.toThrow("errno=32");
  });

  it("ends where a peer that reads nothing filled the queue and falls silent", async () => {
    const { link, channel, ends, view } = await readyLink();
    channel.bufferedBytes = 1 << 20;
    const fill = (message: Bytes) => {
      for (;;) link.send(Kind.MODEL, message);
    };
    expect(() => fill(new Uint8Array(1 << 20))).toThrow(LimitExceededError);
    expect(() => fill(Uint8Array.of(1))).toThrow(LimitExceededError);
    expect(ends).toEqual([]);
    link.tick(link.lastHeard + SILENT_MS);
    expect(ends).toEqual([[expect.stringMatching(`^${view.remote.slice(0, 8)} was silent, and cannot be asked`), true]]);
  });
});
