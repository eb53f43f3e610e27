/** What a node tells its owner. Nothing here holds data, an update or a secret. */

import type { PeerId } from "../protocol/identity.js";
import type { PlanManifest } from "../protocol/manifest.js";
import type { RoundMetrics } from "../protocol/tail.js";
import type { RunTerms } from "../protocol/terms.js";
import type { Verdict } from "./policy.js";

/** Events by name. */
export interface NodeEvents {
  /** A run was offered; `verdict` is the policy's. A node that asks waits for `join` or `decline`. */
  offer: { run: string; author: PeerId; manifest: PlanManifest; terms: RunTerms; verdict: Verdict };
  /** A run was joined. */
  joined: { run: string; runName: string; dataset: string };
  /** The owner's device rules say no for the moment; the node comes back to the run by itself. */
  waiting: { run: string; rule: string; reason: string };
  /** This node holds the run's current model and may be named for a round. */
  ready: { run: string; round: number };
  /** The run's current model is not to be had now; the node tries again by itself. */
  behind: { run: string; round: number; code: string; reason: string };
  /** This node left a run: the owner's policy does not allow its cohort, or storage failed. */
  withdrawn: { run: string; rule: string; reason: string };
  /** A round of a run began. */
  round: { run: string; round: number; attempt: number; cohort: readonly PeerId[] };
  /** Steps of local training, or a stage of the exchange. */
  progress: { run: string; round: number; stage: string; done: number; total: number };
  /** A round gave a model. */
  result: {
    run: string;
    round: number;
    modelDigest: string;
    survivors: number;
    metrics: RoundMetrics;
    milliseconds: number;
    bytesSent: number;
    bytesReceived: number;
  };
  /** This node's group gave its sum, in a round of many cohorts; delegates combine such sums, then comes the model. */
  group: {
    run: string;
    round: number;
    group: number;
    sumDigest: string;
    survivors: number;
    milliseconds: number;
    bytesSent: number;
    bytesReceived: number;
  };
  /** This node has a round's model from a peer: it was away, came late, or delegates found it. */
  fetched: { run: string; round: number; modelDigest: string };
  /** A run ended. */
  ended: { run: string; state: string; reason: string };
  /** Something went wrong; the node goes on unless it says otherwise. */
  error: { code: string; message: string; run: string | null; peer: PeerId | null };
}

export type NodeEventName = keyof NodeEvents;
/** Any event with its name. */
export type NodeEvent = { [K in NodeEventName]: { readonly name: K } & NodeEvents[K] }[NodeEventName];

type Listener<K extends NodeEventName> = (event: NodeEvents[K]) => void;

/** Listeners and readers of a node's events. */
export class EventHub {
  private readonly listeners = new Map<NodeEventName, Set<Listener<never>>>();
  private readonly readers = new Set<Reader>();
  private isClosed = false;

  on<K extends NodeEventName>(name: K, listener: Listener<K>): void {
    const known = this.listeners.get(name) ?? new Set();
    this.listeners.set(name, known.add(listener));
  }

  off<K extends NodeEventName>(name: K, listener: Listener<K>): void {
    this.listeners.get(name)?.delete(listener);
  }

  tell<K extends NodeEventName>(name: K, event: NodeEvents[K]): void {
    for (const listener of this.listeners.get(name) ?? []) {
      try {
        (listener as Listener<K>)(event);
      } catch (error) {
        // the owner's own mistake must reach the owner, and must not stop a round half way
        queueMicrotask(() => {
          throw error;
        });
      }
    }
    for (const reader of this.readers) reader.push({ name, ...event } as NodeEvent);
  }

  /** End all readers, once they have read what was told. */
  close(): void {
    this.isClosed = true;
    for (const reader of this.readers) reader.push(null);
  }

  /** Events from now on, in order; ends with the node or with `signal`. */
  events(signal?: AbortSignal): AsyncGenerator<NodeEvent, void, void> {
    const reader = new Reader();
    if (this.isClosed || signal?.aborted === true) reader.push(null);
    else this.readers.add(reader);
    return this.read(reader, signal);
  }

  private async *read(reader: Reader, signal?: AbortSignal): AsyncGenerator<NodeEvent, void, void> {
    const stop = () => reader.push(null);
    signal?.addEventListener("abort", stop);
    try {
      for (let event = await reader.next(); event !== null; event = await reader.next()) yield event;
    } finally {
      this.readers.delete(reader);
      signal?.removeEventListener("abort", stop);
    }
  }
}

/** Events that one reader has not read; null ends them. */
class Reader {
  private readonly queue: (NodeEvent | null)[] = [];
  private wake = () => {};

  /** Unread progress gives way to newer progress of the same stage, so that a slow reader takes bounded memory. */
  push(event: NodeEvent | null): void {
    const last = this.queue.at(-1);
    const isNewer =
      event?.name === "progress" &&
      last?.name === "progress" &&
      event.run === last.run &&
      event.round === last.round &&
      event.stage === last.stage;
    if (isNewer) this.queue.pop();
    this.queue.push(event);
    this.wake();
  }

  async next(): Promise<NodeEvent | null> {
    while (this.queue.length === 0) await new Promise<void>((resolve) => (this.wake = resolve));
    return this.queue.shift() ?? null;
  }
}
