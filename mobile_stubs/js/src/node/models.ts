/** Models between peers: serving the ones this node holds, fetching one and checking its digest (spec 06 §6). */

import { type Bytes, equalBytes, fromHex, short, toHex } from "../protocol/bytes.js";
import { sha256 } from "../protocol/crypto.js";
import { LinkError, ProtocolError } from "../protocol/errors.js";
import type { PeerId } from "../protocol/identity.js";
import { Kind } from "../protocol/link/framing.js";
import { decodeModelMessage, encodeModelMessage, type ModelMessage, PART_BYTES } from "../protocol/model-transfer.js";
import type { Mesh } from "./mesh.js";

const MAX_SERVING = 4;
const LOOK_MS = 10_000;
/** A holder or a fetcher that is slower keeps its place from others and loses it. */
const SLOWEST_BYTES_PER_S = 4096;
const PART_TIMEOUT_MS = (PART_BYTES / SLOWEST_BYTES_PER_S) * 1000;

interface Fetching {
  readonly run: Bytes;
  readonly digest: Bytes;
  readonly buffer: Bytes;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
  isStarted: boolean;
  filled: number;
}

/** Serves and fetches models over one mesh; at most one fetch from a peer at a time. */
export class ModelExchange {
  private readonly fetching = new Map<PeerId, Fetching>();
  private readonly serving = new Set<PeerId>();

  /** @param lookup gives the bytes of a model this node holds and shares with a peer, by run, round and digest. */
  constructor(
    private readonly mesh: Mesh,
    private readonly lookup: (peer: PeerId, run: string, round: number, digest: string) => Promise<Bytes | null>,
    private readonly onFault: (peer: PeerId, reason: string) => void,
  ) {}

  /**
   * The bytes of a model from a linked peer, checked against `digest`.
   *
   * @throws LinkError no link, a refusal, wrong bytes, or less than 4 KiB/s over ten seconds.
   */
  async fetch(peer: PeerId, run: string, round: number, digest: string, total: number): Promise<Bytes> {
    if (this.fetching.has(peer)) throw new LinkError(`a model from ${short(peer)} is already on its way`);
    const buffer = new Uint8Array(total);
    let watch: ReturnType<typeof setInterval> | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        const item: Fetching = {
          run: fromHex(run),
          digest: fromHex(digest),
          buffer,
          resolve,
          reject,
          isStarted: false,
          filled: 0,
        };
        this.fetching.set(peer, item);
        watch = watchRate(peer, item);
        this.send(peer, { type: "request", run: item.run, round, digest: item.digest });
      });
    } finally {
      clearInterval(watch);
      this.fetching.delete(peer);
    }
    const got = toHex(await sha256(buffer));
    if (got !== digest) throw new LinkError(`model from ${short(peer)} has digest ${short(got)}, the run's log says ${short(digest)}`);
    return buffer;
  }

  /**
   * A model message came from a peer.
   *
   * @throws ProtocolError it does not parse, or is no answer to what was asked.
   */
  receive(peer: PeerId, payload: Bytes): void {
    const message = decodeModelMessage(payload);
    if (message.type === "request") void this.serve(peer, message);
    else this.take(peer, message);
  }

  /** The link to a peer is gone: what it was sending will not come. */
  linkDown(peer: PeerId, reason: string): void {
    this.fetching.get(peer)?.reject(new LinkError(`link to ${short(peer)} went while it sent a model: ${reason}`));
  }

  private take(peer: PeerId, message: Exclude<ModelMessage, { type: "request" }>): void {
    const item = this.fetching.get(peer);
    if (item === undefined || !equalBytes(message.run, item.run)) {
      throw new ProtocolError(`${short(peer)} sent a model that nobody asked for`);
    }
    if (message.type === "refusal") item.reject(new LinkError(`${short(peer)} does not share this run's model`));
    else if (message.type === "header") {
      if (!equalBytes(message.digest, item.digest) || message.total !== item.buffer.length) {
        item.reject(new LinkError(`${short(peer)} offers ${message.total} bytes, the plan's model has ${item.buffer.length}`));
      }
      item.isStarted = true;
    } else {
      const end = message.offset + message.payload.length;
      if (!item.isStarted || message.offset !== item.filled || end > item.buffer.length) {
        item.reject(new LinkError(`${short(peer)} sent bytes at ${message.offset}, expected those at ${item.filled}`));
        return;
      }
      item.buffer.set(message.payload, message.offset);
      item.filled = end;
    }
    if (item.isStarted && item.filled === item.buffer.length) item.resolve();
  }

  private async serve(peer: PeerId, request: Extract<ModelMessage, { type: "request" }>): Promise<void> {
    const { run, digest } = request;
    const isBusy = this.serving.has(peer) || this.serving.size >= MAX_SERVING;
    if (!isBusy) this.serving.add(peer);
    try {
      const data = isBusy ? null : await this.lookup(peer, toHex(run), request.round, toHex(digest));
      if (data === null) {
        this.send(peer, { type: "refusal", run, digest });
        return;
      }
      this.send(peer, { type: "header", run, digest, total: data.length });
      for (let offset = 0; offset < data.length; offset += PART_BYTES) {
        this.send(peer, { type: "part", run, offset, payload: data.subarray(offset, offset + PART_BYTES) });
        await inTime(this.mesh.drain(peer));
      }
    } catch (error) {
      if (!(error instanceof LinkError)) this.onFault(peer, describe(error)); // else the peer went; it asks another one
    } finally {
      if (!isBusy) this.serving.delete(peer);
    }
  }

  private send(peer: PeerId, message: ModelMessage): void {
    this.mesh.send(peer, Kind.MODEL, encodeModelMessage(message));
  }
}

/** Looks at a fetch every ten seconds; the first bytes may take twice as long: they come from the holder's disk. */
function watchRate(peer: PeerId, item: Fetching): ReturnType<typeof setInterval> {
  let [before, due] = [0, 0];
  return setInterval(() => {
    const came = item.filled - before;
    if (came < due) item.reject(new LinkError(`model from ${short(peer)}: ${came} bytes in ${LOOK_MS / 1000} s`));
    before = item.filled;
    due = (SLOWEST_BYTES_PER_S * LOOK_MS) / 1000;
  }, LOOK_MS);
}

/** @throws LinkError the peer does not read. */
async function inTime(sent: Promise<void>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new LinkError("the peer does not take the model")), PART_TIMEOUT_MS);
  });
  try {
    await Promise.race([sent, late]);
  } finally {
    clearTimeout(timer);
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
