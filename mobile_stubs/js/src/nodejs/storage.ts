/** Durable storage of a node in a folder: a journal of lines, receipts, and one checkpoint per run. */

import { mkdir, open, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { type Bytes, concat, isHex64, utf8 } from "../protocol/bytes.js";
import { StorageError } from "../node/errors.js";
import type { Checkpoint, Storage } from "../node/platform.js";
import { FolderLock } from "./folder-lock.js";

const JOURNAL = "journal.log";
const RECEIPTS = "receipts.jsonl";

/** Storage in `folder`, which is made for its owner alone. One process at a time. */
export class FolderStorage implements Storage {
  private readonly rounds = new Set<string>();
  private order: Promise<unknown> = Promise.resolve();

  private constructor(
    private readonly folder: string,
    private readonly lock: FolderLock,
  ) {}

  /**
   * Open the folder and keep others out until `close`.
   *
   * @throws StorageInUseError another process has it open.
   * @throws StorageError the folder cannot be read or made.
   */
  static async open(folder: string): Promise<FolderStorage> {
    const lock = await takeLock(folder);
    const storage = new FolderStorage(folder, lock);
    try {
      const journal = await readFile(join(folder, JOURNAL), "utf8").catch(absent);
      for (const line of journal?.split("\n") ?? []) {
        const [roundId = "", entry] = line.split(" ");
        if (entry === "joined" && isHex64(roundId)) storage.rounds.add(roundId);
      }
    } catch (error) {
      lock.release();
      throw new StorageError(`storage ${folder}: ${String(error)}`);
    }
    return storage;
  }

  /** Give the folder free. */
  close(): void {
    this.lock.release();
  }

  async record(roundId: string, entry: string, detail: string): Promise<void> {
    await this.exclusive(async () => {
      await this.append(JOURNAL, `${roundId} ${entry} ${detail}\n`);
      if (entry === "joined") this.rounds.add(roundId);
    });
  }

  async saveReceipt(envelope: Bytes): Promise<void> {
    await this.exclusive(() => this.append(RECEIPTS, `${new TextDecoder().decode(envelope)}\n`));
  }

  async receipts(): Promise<readonly Bytes[]> {
    const lines = await readFile(join(this.folder, RECEIPTS), "utf8").catch(absent);
    return (lines?.split("\n") ?? []).filter((line) => line !== "").map((line) => utf8(line));
  }

  async joined(roundId: string): Promise<boolean> {
    return this.rounds.has(roundId);
  }

  /** The checkpoint appears whole or not at all: a header line of JSON, the model's bytes, then the peer's own. */
  async saveCheckpoint(run: string, { round, reached, digest, model, local }: Checkpoint): Promise<void> {
    await this.exclusive(async () => {
      const target = this.checkpointPath(run);
      const header = utf8(`${JSON.stringify({ round, reached, digest, local: local.length })}\n`);
      const file = await open(`${target}.partial`, "w", 0o600);
      try {
        await file.writeFile(concat(header, model, local));
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(`${target}.partial`, target);
      const directory = await open(this.folder, "r");
      try {
        await directory.sync();
      } finally {
        await directory.close();
      }
    });
  }

  async loadCheckpoint(run: string): Promise<Checkpoint | null> {
    const data = await readFile(this.checkpointPath(run)).catch(absent);
    if (data === null) return null;
    const cut = data.indexOf(10);
    const header = JSON.parse(data.subarray(0, cut).toString()) as Omit<Checkpoint, "model" | "local"> & { local?: number };
    const { round, reached, digest, local = 0 } = header; // one of a plan without local parameters may not name them
    const end = data.length - local;
    return { round, reached, digest, model: Uint8Array.from(data.subarray(cut + 1, end)), local: Uint8Array.from(data.subarray(end)) };
  }

  private async append(name: string, line: string): Promise<void> {
    const file = await open(join(this.folder, name), "a", 0o600);
    try {
      await file.write(line);
      await file.sync();
    } finally {
      await file.close();
    }
  }

  private checkpointPath(run: string): string {
    return join(this.folder, `${run}.model`);
  }

  private exclusive(work: () => Promise<void>): Promise<void> {
    const turn = this.order.then(work).catch((error: unknown) => {
      throw new StorageError(`storage ${this.folder}: ${String(error)}`);
    });
    this.order = turn.catch(() => undefined);
    return turn;
  }
}

async function takeLock(folder: string): Promise<FolderLock> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    return await FolderLock.take(folder);
  } catch (error) {
    if (error instanceof StorageError) throw error;
    throw new StorageError(`storage ${folder}: ${String(error)}`);
  }
}

function absent(error: NodeJS.ErrnoException): null {
  if (error.code === "ENOENT") return null;
  throw error;
}
