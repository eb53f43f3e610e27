/** The one file that knows node-datachannel: peer connections in the words the mesh uses. */

import { type DataChannel, type IceServer as NativeIceServer, PeerConnection } from "node-datachannel";
import type { Bytes } from "../protocol/bytes.js";
import { LinkError } from "../protocol/errors.js";
import { onlySha256 } from "../protocol/link/negotiation.js";
import type { IceServer, Rtc, RtcConnection, RtcEvents } from "../node/platform.js";
import { type Certificate, generateCertificate } from "./certificate.js";

const LABEL = "peerplan/1";
/** How long gathering may take before what was found is sent. */
const GATHER_MS = 2_000;

/** Connections by libdatachannel that all show one certificate. */
export async function createNodeRtc(): Promise<Rtc> {
  const certificate = await generateCertificate();
  return {
    fingerprint: certificate.fingerprint,
    check: (iceServers) => void iceServers.flatMap(nativeServers),
    connect: ({ iceServers, lowBytes, events }) => new Connection(certificate, iceServers, lowBytes, events),
  };
}

class Connection implements RtcConnection {
  private readonly pc: PeerConnection;
  private readonly channel: DataChannel;
  private isOver = false;

  constructor(certificate: Certificate, iceServers: readonly IceServer[], lowBytes: number, private readonly events: RtcEvents) {
    this.pc = new PeerConnection("peerplan", {
      iceServers: iceServers.flatMap(nativeServers),
      certificatePemFile: certificate.certificatePem, // despite its name it takes the text itself
      keyPemFile: certificate.keyPem,
      disableAutoNegotiation: true,
    });
    this.channel = this.pc.createDataChannel(LABEL, { negotiated: true, id: 0 });
    this.channel.setBufferedAmountLowThreshold(lowBytes);
    this.channel.onOpen(() => this.report(() => events.onOpen()));
    this.channel.onBufferedAmountLow(() => this.report(() => events.onWritable()));
    this.channel.onClosed(() => this.ended("the data channel was closed"));
    this.channel.onError((reason) => this.ended(`the data channel failed: ${reason}`));
    this.channel.onMessage((data) => this.received(data));
    this.pc.onStateChange((state) => {
      if (state === "failed" || state === "closed") this.ended(`the connection is ${state}`);
    });
  }

  async createOffer(): Promise<string> {
    return this.describe("offer");
  }

  async acceptOffer(sdp: string): Promise<string> {
    this.setRemote(sdp, "offer");
    return this.describe("answer");
  }

  async acceptAnswer(sdp: string): Promise<void> {
    this.setRemote(sdp, "answer");
  }

  async addCandidate(line: string): Promise<void> {
    if (line === "") return; // libdatachannel needs no word that there are no more
    try {
      this.pc.addRemoteCandidate(line, "0");
    } catch (error) {
      throw new LinkError(`candidate ${JSON.stringify(line.slice(0, 80))} cannot be used: ${String(error)}`);
    }
  }

  remoteFingerprint(): string {
    const { value, algorithm } = this.pc.remoteFingerprint();
    const digits = value.replaceAll(":", "").toLowerCase();
    if (algorithm.toLowerCase() !== "sha-256" || !/^[0-9a-f]{64}$/.test(digits)) {
      throw new LinkError(`the DTLS session reports a certificate by ${algorithm}, expected sha-256`);
    }
    return digits;
  }

  get maxMessageBytes(): number {
    return this.channel.maxMessageSize();
  }

  get bufferedBytes(): number {
    return this.channel.bufferedAmount();
  }

  get isOpen(): boolean {
    return !this.isOver && this.channel.isOpen();
  }

  send(frame: Bytes): void {
    this.channel.sendMessageBinary(frame);
  }

  close(): void {
    this.isOver = true;
    this.pc.close();
  }

  private describe(type: "offer" | "answer"): Promise<string> {
    return new Promise((resolve, reject) => {
      const done = () => {
        clearTimeout(timer);
        const sdp = this.pc.localDescription()?.sdp;
        if (sdp === undefined) reject(new LinkError(`no ${type} could be made`));
        else resolve(onlySha256(sdp));
      };
      const timer = setTimeout(done, GATHER_MS);
      this.pc.onGatheringStateChange((state) => {
        if (state === "complete") done();
      });
      this.pc.setLocalDescription(type);
    });
  }

  private setRemote(sdp: string, type: "offer" | "answer"): void {
    try {
      this.pc.setRemoteDescription(sdp, type);
    } catch (error) {
      throw new LinkError(`the ${type} cannot be used: ${String(error)}`);
    }
  }

  private received(data: string | Buffer | ArrayBuffer): void {
    if (this.isOver) return;
    if (typeof data === "string") this.ended("text came on a binary channel");
    else this.events.onData(Uint8Array.from(data instanceof ArrayBuffer ? new Uint8Array(data) : data));
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

/** node-datachannel is built with libjuice, which asks STUN and TURN servers over UDP alone and leaves out the others. */
function nativeServers(server: IceServer): NativeIceServer[] {
  return [server.urls].flat().map((url) => {
    const [, scheme, hostname = "", port = "3478"] = /^(stun|turn):([^:?[\]\s]+)(?::(\d{1,5}))?(?:\?transport=udp)?$/.exec(url) ?? [];
    if (scheme === undefined) {
      const shown = JSON.stringify(url.slice(0, 200));
      throw new LinkError(`ICE server ${shown}: Node.js uses STUN and TURN over UDP alone, expected stun:HOST:PORT or turn:HOST:PORT`);
    }
    const host = { hostname, port: Number(port) };
    const { username = "", credential = "" } = server;
    return scheme === "stun" ? host : { ...host, username, password: credential, relayType: "TurnUdp" };
  });
}
