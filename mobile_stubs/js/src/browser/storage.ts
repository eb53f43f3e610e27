/** Durable storage of a node in IndexedDB: journal, checkpoints, and an identity whose key cannot be read out. */

import { StorageError, StorageInUseError } from "../node/errors.js";
import type { Checkpoint, Storage } from "../node/platform.js";
import type { Bytes } from "../protocol/bytes.js";
import { Identity } from "../protocol/identity.js";

const STORES = ["journal", "rounds", "checkpoints", "identity", "receipts"] as const;
const VERSION = 2;
type Store = (typeof STORES)[number];

/** Storage of one peer under a name; two peers of one site take two names, and one name serves one tab at a time. */
export class DatabaseStorage implements Storage {
  private constructor(
    private readonly database: IDBDatabase,
    private readonly giveFree: () => void,
  ) {}

  /**
   * Open, or make, the database of a name, and keep other tabs out until `close` or the end of the page.
   *
   * @throws StorageInUseError another tab has it open.
   * @throws StorageError the browser denies storage (a private window, a full disk, a blocked site).
   */
  static async open(name = "peerplan"): Promise<DatabaseStorage> {
    const giveFree = await takeLock(name);
    try {
      return new DatabaseStorage(await openDatabase(name), giveFree);
    } catch (error) {
      giveFree();
      throw error;
    }
  }

  /** Give the name free. */
  close(): void {
    this.database.close();
    this.giveFree();
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

  async saveCheckpoint(run: string, checkpoint: Checkpoint): Promise<void> {
    const copy = { ...checkpoint, model: checkpoint.model.slice(), local: checkpoint.local.slice() };
    await this.write(["checkpoints"], (stores) => stores.checkpoints.put(copy, run));
  }

  async loadCheckpoint(run: string): Promise<Checkpoint | null> {
    const found = (await this.read("checkpoints", run)) as Checkpoint | undefined;
    return found === undefined ? null : { ...found, local: found.local ?? new Uint8Array() }; // older ones have none
  }

  async saveReceipt(envelope: Bytes): Promise<void> {
    await this.write(["receipts"], (stores) => stores.receipts.put(envelope));
  }

  async receipts(): Promise<readonly Bytes[]> {
    return this.ask("receipts", (store) => store.getAll());
  }

  private read(store: Store, key: string): Promise<unknown> {
    return this.ask(store, (found) => found.get(key));
  }

  private async ask<T>(store: Store, request: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
    try {
      return await settled(request(this.database.transaction(store).objectStore(store)), `reading ${store}`);
    } catch (error) {
      throw error instanceof StorageError ? error : new StorageError(`reading ${store}: ${String(error)}`);
    }
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

async function openDatabase(name: string): Promise<IDBDatabase> {
  if (typeof indexedDB === "undefined") throw new StorageError("this browser has no IndexedDB");
  try {
    const request = indexedDB.open(name, VERSION);
    request.onupgradeneeded = () => {
      const known = request.result.objectStoreNames;
      for (const store of STORES) {
        if (known.contains(store)) continue;
        request.result.createObjectStore(store, { autoIncrement: store === "journal" || store === "receipts" });
      }
    };
    return await settled(request, `database ${name}`);
  } catch (error) {
    throw error instanceof StorageError ? error : new StorageError(`database ${name}: ${String(error)}`);
  }
}

/** The browser gives the lock free when the tab goes. Gives what ends it before. */
function takeLock(name: string): Promise<() => void> {
  return new Promise((resolve, reject) => {
    const held = async (lock: Lock | null): Promise<void> => {
      if (lock === null) throw new StorageInUseError(`database ${name}: in use by another tab; each node needs a name of its own`);
      await new Promise<void>((release) => resolve(release));
    };
    const denied = (error: unknown) => {
      reject(error instanceof StorageError ? error : new StorageError(`database ${name}: ${String(error)}`));
    };
    try {
      navigator.locks.request(`peerplan/${name}`, { ifAvailable: true }, held).catch(denied);
    } catch (error) {
      denied(error); // a page that is denied storage is denied locks as well
    }
  });
}

function settled<T>(request: IDBRequest<T>, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(new StorageError(`${what}: ${String(request.error)}`));
  });
}
