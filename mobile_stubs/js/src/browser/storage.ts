/** Durable storage of a node in IndexedDB: journal, checkpoints, and an identity whose key cannot be read out. */

import { StorageError } from "../node/errors.js";
import type { Storage } from "../node/platform.js";
import type { Bytes } from "../protocol/bytes.js";
import { Identity } from "../protocol/identity.js";

const STORES = ["journal", "rounds", "checkpoints", "identity"] as const;
type Store = (typeof STORES)[number];

/** Storage of one peer under a name; two peers of one site take two names. */
export class DatabaseStorage implements Storage {
  private constructor(private readonly database: IDBDatabase) {}

  /**
   * Open, or make, the database of a name.
   *
   * @throws StorageError the browser denies storage (a private window, a full disk, a blocked site).
   */
  static async open(name = "peerplan"): Promise<DatabaseStorage> {
    if (typeof indexedDB === "undefined") throw new StorageError("this browser has no IndexedDB");
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => {
      for (const store of STORES) request.result.createObjectStore(store, { autoIncrement: store === "journal" });
    };
    return new DatabaseStorage(await settled(request, `database ${name}`));
  }

  /** The identity kept here; it is made on first use. */
  async identity(): Promise<Identity> {
    const kept = (await this.read("identity", "own")) as Parameters<typeof Identity.restore>[0] | undefined;
    if (kept !== undefined) return Identity.restore(kept);
    const identity = await Identity.generate();
    await this.write(["identity"], (stores) => stores.identity.put(identity.store(), "own"));
    return identity;
  }

  async record(roundId: string, entry: string, detail: string): Promise<void> {
    await this.write(["journal", "rounds"], (stores) => {
      stores.journal.put({ roundId, entry, detail });
      if (entry === "joined") stores.rounds.put(true, roundId);
    });
  }

  async joined(roundId: string): Promise<boolean> {
    return (await this.read("rounds", roundId)) === true;
  }

  async saveCheckpoint(run: string, round: number, digest: string, model: Bytes): Promise<void> {
    const checkpoint = { round, digest, model: model.slice() };
    await this.write(["checkpoints"], (stores) => stores.checkpoints.put(checkpoint, run));
  }

  async loadCheckpoint(run: string): Promise<{ round: number; digest: string; model: Bytes } | null> {
    return ((await this.read("checkpoints", run)) as { round: number; digest: string; model: Bytes } | undefined) ?? null;
  }

  private read(store: Store, key: string): Promise<unknown> {
    return settled(this.database.transaction(store).objectStore(store).get(key), `reading ${store}`);
  }

  /** Resolves once the transaction is on disk. */
  private write(stores: readonly Store[], change: (stores: Record<Store, IDBObjectStore>) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const fail = (error: unknown) => reject(new StorageError(`writing ${stores.join(", ")}: ${String(error)}`));
      try {
        const transaction = this.database.transaction(stores, "readwrite", { durability: "strict" });
        transaction.oncomplete = () => resolve();
        transaction.onabort = () => fail(transaction.error);
        const opened = stores.map((name) => [name, transaction.objectStore(name)]);
        change(Object.fromEntries(opened) as Record<Store, IDBObjectStore>);
      } catch (error) {
        fail(error);
      }
    });
  }
}

function settled<T>(request: IDBRequest<T>, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(new StorageError(`${what}: ${String(request.error)}`));
  });
}
