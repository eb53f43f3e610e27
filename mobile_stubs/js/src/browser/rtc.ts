/** The browser's own peer connections, in the words the mesh uses. */

import { PlatformError } from "../node/errors.js";
import type { IceServer, Rtc, RtcConnection, RtcEvents } from "../node/platform.js";
import type { Bytes } from "../protocol/bytes.js";
import { LinkError } from "../protocol/errors.js";
import { fingerprintIn, onlySha256 } from "../protocol/link/negotiation.js";

const LABEL = "peerplan/1";
/** How long gathering may take before what was found is sent. */
const GATHER_MS = 2_000;
/** What a side accepts that announces nothing (RFC 8841 §6), and no frame is larger. */
const USUAL_MESSAGE_BYTES = 65_536;

/**
 * Connections that all show one certificate, whose key the browser keeps to itself.
 *
 * @throws PlatformError this browser has no WebRTC.
 */
export async function createBrowserRtc(): Promise<Rtc> {
  if (typeof RTCPeerConnection === "undefined") {
    throw new PlatformError("no-webrtc", "this browser has no WebRTC, without which no peer can be reached");
  }
  const usage = { name: "ECDSA", namedCurve: "P-256" };
  const certificate = await RTCPeerConnection.generateCertificate(usage);
  return {
    fingerprint: await fingerprintOf(certificate),
    connect: ({ iceServers, lowBytes, events }) => new Connection(certificate, iceServers, lowBytes, events),
  };
}

/** What a description made with a certificate says of it: `getFingerprints` is not in every browser. */
async function fingerprintOf(certificate: RTCCertificate): Promise<string> {
  const pc = new RTCPeerConnection({ certificates: [certificate] });
  try {
    pc.createDataChannel(LABEL, { negotiated: true, id: 0 });
    return fingerprintIn(onlySha256((await pc.createOffer()).sdp ?? ""));
  } finally {
    pc.close();
  }
}

class Connection implements RtcConnection {
  private readonly pc: RTCPeerConnection;
  private readonly channel: RTCDataChannel;
  private isOver = false;
  /** Kept here since a channel may be open before the browser says that it took the description in which it is. */
  private remoteSdp = "";

  constructor(
    certificate: RTCCertificate,
    iceServers: readonly IceServer[],
    lowBytes: number,
    private readonly events: RtcEvents,
  ) {
    this.pc = new RTCPeerConnection({ certificates: [certificate], iceServers: [...iceServers] });
    this.channel = this.pc.createDataChannel(LABEL, { negotiated: true, id: 0, ordered: true });
    this.channel.binaryType = "arraybuffer";
    this.channel.bufferedAmountLowThreshold = lowBytes;
    this.channel.onopen = () => this.report(() => events.onOpen());
    this.channel.onbufferedamountlow = () => this.report(() => events.onWritable());
    this.channel.onclose = () => this.ended("the data channel was closed");
    this.channel.onmessage = ({ data }) => this.received(data);
    this.pc.onconnectionstatechange = () => {
      const state = this.pc.connectionState;
      if (state === "failed" || state === "closed") this.ended(`the connection is ${state}`);
    };
  }

  async createOffer(): Promise<string> {
    await this.pc.setLocalDescription(await this.pc.createOffer());
    return this.described();
  }

  async acceptOffer(sdp: string): Promise<string> {
    await this.setRemote(sdp, "offer");
    await this.pc.setLocalDescription(await this.pc.createAnswer());
    return this.described();
  }

  async acceptAnswer(sdp: string): Promise<void> {
    await this.setRemote(sdp, "answer");
  }

  async addCandidate(line: string): Promise<void> {
    try {
      await this.pc.addIceCandidate(line === "" ? undefined : { candidate: line, sdpMLineIndex: 0 });
    } catch (error) {
      throw new LinkError(`candidate ${JSON.stringify(line.slice(0, 80))} cannot be used: ${String(error)}`);
    }
  }

  /** A page does not see the live certificate; the browser has refused any but the described one (spec 04 §4). */
  remoteFingerprint(): string {
    return fingerprintIn(this.remoteSdp);
  }

  get maxMessageBytes(): number {
    const [, announced] = /^a=max-message-size:(\d+)\r?$/m.exec(this.remoteSdp) ?? [];
    return Number(announced ?? 0) || USUAL_MESSAGE_BYTES; // 0 stands for any size
  }

  get bufferedBytes(): number {
    return this.channel.bufferedAmount;
  }

  get isOpen(): boolean {
    return !this.isOver && this.channel.readyState === "open";
  }

  send(frame: Bytes): void {
    this.channel.send(frame);
  }

  close(): void {
    this.isOver = true;
    this.pc.close();
  }

  private async described(): Promise<string> {
    if (this.pc.iceGatheringState !== "complete") {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, GATHER_MS);
        this.pc.onicegatheringstatechange = () => {
          if (this.pc.iceGatheringState !== "complete") return;
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return onlySha256(this.pc.localDescription?.sdp ?? "");
  }

  private async setRemote(sdp: string, type: RTCSdpType): Promise<void> {
    this.remoteSdp = sdp;
    try {
      await this.pc.setRemoteDescription({ type, sdp });
    } catch (error) {
      throw new LinkError(`the ${type} cannot be used: ${String(error)}`);
    }
  }

  private received(data: unknown): void {
    if (this.isOver) return;
    if (data instanceof ArrayBuffer) this.events.onData(new Uint8Array(data));
    else this.ended("text came on a binary channel");
  }

  private report(event: () => void): void {
    if (!this.isOver) event();
  }

  private ended(reason: string): void {
    if (this.isOver) return;
    this.isOver = true;
    this.events.onClosed(reason);
  }
}
