/** Durable storage of a node in a folder: a journal of lines, and one checkpoint per run. */

import { mkdir, open, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { type Bytes, concat, isHex64 } from "../protocol/bytes.js";
import { StorageError } from "../node/errors.js";
import type { Storage } from "../node/platform.js";

const JOURNAL = "journal.log";

/** Storage in `folder`, which is made for its owner alone. One process at a time. */
export class FolderStorage implements Storage {
  private readonly rounds = new Set<string>();
  private order: Promise<unknown> = Promise.resolve();

  private constructor(private readonly folder: string) {}

  /** @throws StorageError the folder cannot be read or made. */
  static async open(folder: string): Promise<FolderStorage> {
    const storage = new FolderStorage(folder);
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const journal = await readFile(join(folder, JOURNAL), "utf8").catch(absent);
      for (const line of journal?.split("\n") ?? []) {
        const [roundId = "", entry] = line.split(" ");
        if (entry === "joined" && isHex64(roundId)) storage.rounds.add(roundId);
      }
    } catch (error) {
      throw new StorageError(`storage ${folder}: ${String(error)}`);
    }
    return storage;
  }

  async record(roundId: string, entry: string, detail: string): Promise<void> {
    await this.exclusive(async () => {
      const file = await open(join(this.folder, JOURNAL), "a", 0o600);
      try {
        await file.write(`${roundId} ${entry} ${detail}\n`);
        await file.sync();
      } finally {
        await file.close();
      }
      if (entry === "joined") this.rounds.add(roundId);
    });
  }

  async joined(roundId: string): Promise<boolean> {
    return this.rounds.has(roundId);
  }

  /** The checkpoint appears whole or not at all: a header line of JSON, then the model's bytes. */
  async saveCheckpoint(run: string, round: number, digest: string, model: Bytes): Promise<void> {
    await this.exclusive(async () => {
      const target = this.checkpointPath(run);
      const header = new TextEncoder().encode(`${JSON.stringify({ round, digest })}\n`) as Bytes;
      const file = await open(`${target}.partial`, "w", 0o600);
      try {
        await file.writeFile(concat(header, model));
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

  async loadCheckpoint(run: string): Promise<{ round: number; digest: string; model: Bytes } | null> {
    const data = await readFile(this.checkpointPath(run)).catch(absent);
    if (data === null) return null;
    const cut = data.indexOf(10);
    const { round, digest } = JSON.parse(data.subarray(0, cut).toString()) as { round: number; digest: string };
    return { round, digest, model: Uint8Array.from(data.subarray(cut + 1)) };
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

function absent(error: NodeJS.ErrnoException): null {
  if (error.code === "ENOENT") return null;
  throw error;
}
