/**
 * ONNX Runtime in a worker, so that a training step never keeps links, timers or a page waiting.
 *
 * Requests and replies are matched by number. `Port` is what a browser's Worker and a thread of Node.js both have.
 */

import type { Bytes } from "../protocol/bytes.js";
import type { Loader, Runtime, Session, Tensor } from "./platform.js";

type Tensors = Readonly<Record<string, Tensor>>;

/** What a worker is asked. */
export type WorkerRequest =
  | { readonly id: number; readonly do: "load"; readonly graph: Bytes }
  | { readonly id: number; readonly do: "run"; readonly session: number; readonly feeds: Tensors }
  | { readonly id: number; readonly do: "release"; readonly session: number };

/** What a worker answers. */
export type WorkerReply =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: string };

/** The longest one call of ONNX Runtime may take: a plan may loop without end (spec 05 §5). */
const CALL_LIMIT_MS = 600_000;

/** A channel to a worker. */
export interface Port {
  post(request: WorkerRequest): void;
  /** Called once; `failed` ends everything that waits. */
  listen(onReply: (reply: WorkerReply) => void, failed: (reason: string) => void): void;
  /** End the worker, also while it computes. */
  close(): void;
}

/**
 * A runtime that asks a worker. The worker is made when the first graph is loaded, and anew after one that failed: a
 * call that fails, or takes longer than `limitMs`, ends its worker, and with it every session that worker had: a
 * WebAssembly memory that a plan made large never shrinks, and one that broke is of no more use.
 */
export function workerRuntime(openPort: () => Port, limitMs: number = CALL_LIMIT_MS): Runtime {
  let client: Client | null = null;
  return {
    async load(graph) {
      if (client === null || client.isOver) client = new Client(openPort(), limitMs);
      return client.load(graph);
    },
    close() {
      client?.fail("the node has stopped");
    },
  };
}

class Client {
  private next = 0;
  private failure: string | null = null;
  private readonly waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly port: Port,
    private readonly limitMs: number,
  ) {
    port.listen(
      (reply) => {
        const found = this.waiting.get(reply.id);
        this.waiting.delete(reply.id);
        this.watch(); // calls are made one after the other: the next one has its own time
        if ("error" in reply) {
          found?.reject(new Error(reply.error));
          this.fail("the runtime was ended, as another call in it failed");
        } else found?.resolve(reply.value);
      },
      (reason) => this.fail(reason),
    );
  }

  /** Whether the worker is gone. */
  get isOver(): boolean {
    return this.failure !== null;
  }

  /** End the worker and whatever waits for it. */
  fail(reason: string): void {
    if (this.failure !== null) return;
    this.failure = reason;
    clearTimeout(this.timer);
    this.port.close();
    for (const { reject } of this.waiting.values()) reject(new Error(reason));
    this.waiting.clear();
  }

  async load(graph: Bytes): Promise<Session> {
    const session = (await this.ask({ do: "load", graph })) as number;
    const isOver = () => this.isOver;
    return {
      get isOver() {
        return isOver();
      },
      run: async (feeds) => (await this.ask({ do: "run", session, feeds })) as Tensors,
      release: async () => void (await this.ask({ do: "release", session })),
    };
  }

  private ask(request: DistributiveOmit<WorkerRequest, "id">): Promise<unknown> {
    if (this.failure !== null) return Promise.reject(new Error(this.failure));
    const id = ++this.next;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      if (this.waiting.size === 1) this.watch();
      this.port.post({ id, ...request });
    });
  }

  private watch(): void {
    clearTimeout(this.timer);
    if (this.waiting.size === 0) return;
    const seconds = this.limitMs / 1000;
    this.timer = setTimeout(() => this.fail(`took longer than ${seconds} s and was stopped`), this.limitMs);
  }
}

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;

/** The other end: answers requests with a runtime, one after the other. */
export function serveRuntime(runtime: Loader, reply: (reply: WorkerReply) => void): (request: WorkerRequest) => void {
  const sessions = new Map<number, Session>();
  let order: Promise<void> = Promise.resolve();
  const perform = async (request: WorkerRequest): Promise<unknown> => {
    if (request.do === "load") {
      sessions.set(request.id, await runtime.load(request.graph));
      return request.id;
    }
    const session = sessions.get(request.session);
    if (session === undefined) throw new Error(`there is no session ${request.session}`);
    if (request.do === "run") return session.run(request.feeds);
    sessions.delete(request.session);
    return session.release();
  };
  return (request) => {
    order = order.then(() =>
      perform(request).then(
        (value) => reply({ id: request.id, value }),
        (error: unknown) => reply({ id: request.id, error: error instanceof Error ? error.message : String(error) }),
      ),
    );
  };
}
