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
  private readonly readers = new Set<(event: NodeEvent | null) => void>();

  on<K extends NodeEventName>(name: K, listener: Listener<K>): void {
    const known = this.listeners.get(name) ?? new Set();
    this.listeners.set(name, known.add(listener));
  }

  off<K extends NodeEventName>(name: K, listener: Listener<K>): void {
    this.listeners.get(name)?.delete(listener);
  }

  tell<K extends NodeEventName>(name: K, event: NodeEvents[K]): void {
    for (const listener of this.listeners.get(name) ?? []) (listener as Listener<K>)(event);
    for (const reader of this.readers) reader({ name, ...event } as NodeEvent);
  }

  /** End all readers. */
  close(): void {
    for (const reader of this.readers) reader(null);
  }

  /** Events from now on, in order; ends with the node or with `signal`. */
  async *events(signal?: AbortSignal): AsyncGenerator<NodeEvent, void, void> {
    const queue: (NodeEvent | null)[] = [];
    let wake = () => {};
    const reader = (event: NodeEvent | null) => {
      queue.push(event);
      wake();
    };
    const stop = () => reader(null);
    this.readers.add(reader);
    signal?.addEventListener("abort", stop);
    try {
      for (;;) {
        while (queue.length === 0) await new Promise<void>((resolve) => (wake = resolve));
        const event = queue.shift() ?? null;
        if (event === null) return;
        yield event;
      }
    } finally {
      this.readers.delete(reader);
      signal?.removeEventListener("abort", stop);
    }
  }
}
