/** One link over a channel in memory that closes, or is not read, when the test says so. */

import { describe, expect, it } from "vitest";
import { Link, type LinkEvents } from "../../src/node/link.js";
import type { RtcConnection } from "../../src/node/platform.js";
import { RunningClock } from "../../src/node/running-clock.js";
import type { Bytes } from "../../src/protocol/bytes.js";
import { LimitExceededError } from "../../src/protocol/errors.js";
import { Identity } from "../../src/protocol/identity.js";
import { FrameEncoder, Kind, OutgoingMessage } from "../../src/protocol/link/framing.js";
import { type LinkView, sealHello } from "../../src/protocol/link/hello.js";

const SILENT_MS = 800;
const BEAT_MS = 250;

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
  const time = { ms: 0 };
  const clock = new RunningClock(() => time.ms, BEAT_MS);
  const ends: [string, boolean][] = [];
  const encoder = new FrameEncoder();
  let link: Link | undefined;
  await new Promise<void>((resolve, reject) => {
    const events: LinkEvents = {
      onReady: resolve,
      onMessage: () => {},
      onEnd: (reason, retry) => ends.push([reason, retry]),
      onFault: (reason) => reject(new Error(reason)),
    };
    link = new Link(channel, view, { bulkBytes: 1 << 20, modelBytes: 1 << 20 }, { sent: 0, received: 0 }, events, clock);
    const made = link;
    void (async () => {
      await made.greet(here);
      made.receive(encoder.frame(new OutgoingMessage(Kind.HELLO, await sealHello(there, theirs))));
    })();
  });
  const made = link as Link;
  /** The process runs for so long, and looks after its link. */
  const run = (ms: number) => {
    for (const end = time.ms + ms; time.ms < end; made.tick(clock.now())) time.ms += BEAT_MS;
  };
  const hear = () => made.receive(encoder.frame(new OutgoingMessage(Kind.CONTROL, Uint8Array.of(1))));
  return { link: made, channel, ends, view, time, run, hear };
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

describe("a link whose other side is silent", () => {
  it("stays while that may be slow, and is as before once it speaks", async () => {
    const { ends, run, hear } = await readyLink();
    run(6_750);
    hear();
    run(6_750);
    expect(ends).toEqual([]);
    run(BEAT_MS);
    expect(ends).toEqual([[expect.stringMatching(/was silent for 7\.0 s$/), true]]);
  });

  it("ends after two and a half seconds where signaling lost it too, before or meanwhile", async () => {
    for (const before of [0, 500, 2_000]) {
      const { link, ends, run } = await readyLink();
      run(before);
      link.signalingLost();
      run(2_250 - before);
      expect(ends).toEqual([]);
      run(BEAT_MS);
      expect(ends).toEqual([[expect.stringMatching(/was silent for 2\.5 s, signaling lost it too$/), true]]);
    }
  });

  it("ends so also where something of it was still on its way, but not where it went on to speak", async () => {
    const late = await readyLink();
    late.link.signalingLost();
    late.run(750);
    late.hear();
    late.run(2_500);
    expect(late.ends).toEqual([[expect.stringContaining("signaling lost it too"), true]]);

    const alive = await readyLink();
    alive.link.signalingLost();
    alive.run(1_000);
    alive.hear();
    alive.run(6_750);
    expect(alive.ends).toEqual([]);
  });

  it("may be slow again once signaling has it back, and is dead soon where it is lost once more", async () => {
    for (const after of [0, 1_000, 2_250]) {
      const { link, ends, run } = await readyLink();
      link.signalingLost();
      run(after);
      link.signalingRegained();
      run(6_750 - after);
      expect(ends).toEqual([]);
      run(BEAT_MS);
      expect(ends).toEqual([[expect.stringMatching(/was silent for 7\.0 s$/), true]]);
    }
    const { link, ends, run } = await readyLink();
    link.signalingLost();
    link.signalingRegained();
    run(2_000);
    link.signalingLost();
    run(250);
    expect(ends).toEqual([]);
    run(BEAT_MS);
    expect(ends).toEqual([[expect.stringMatching(/was silent for 2\.5 s, signaling lost it too$/), true]]);
  });

  it("has one of the two limits whatever signaling says how often", async () => {
    for (const [last, limit] of [["lost", 2_500], ["regained", 7_000]] as const) {
      const { link, ends, run } = await readyLink();
      const lie = (ms: number) => {
        for (let at = 0; at < ms; at += BEAT_MS) {
          if (last === "lost") link.signalingRegained();
          link.signalingLost();
          if (last === "regained") link.signalingRegained();
          run(BEAT_MS);
        }
      };
      lie(limit - BEAT_MS);
      expect(ends).toEqual([]);
      lie(BEAT_MS);
      expect(ends).toEqual([[expect.stringContaining(`was silent for ${(limit / 1000).toFixed(1)} s`), true]]);
    }
  });

  it("is not blamed for the time in which this side did not run", async () => {
    const { link, ends, run, time } = await readyLink();
    link.signalingLost();
    run(1_000);
    time.ms += 60_000;
    run(1_250); // the stop counts as one beat
    expect(ends).toEqual([]);
    run(BEAT_MS);
    expect(ends).toEqual([[expect.stringMatching(/was silent for 2\.5 s, signaling lost it too$/), true]]);
  });
});
