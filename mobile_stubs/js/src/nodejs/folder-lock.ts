/**
 * One process per folder: two nodes of one identity would answer each other's rounds.
 *
 * Node.js has no `flock`. On Linux a name in the abstract socket namespace is held instead, on macOS and Windows the
 * file `lock` is opened exclusively; the operating system gives both free when the process dies. Containers with
 * network namespaces of their own do not see each other's locks.
 */

import { closeSync, openSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { StorageInUseError } from "../node/errors.js";

/** UV_FS_O_EXLOCK of libuv on Windows, and O_EXLOCK | O_NONBLOCK of macOS. */
const EXCLUSIVE = process.platform === "win32" ? 0x1000_0000 : 0x20 | 0x4;
const READ_WRITE_CREATE = process.platform === "win32" ? 0x102 : 0x202;

/** Held until `release`. */
export class FolderLock {
  private constructor(private readonly giveFree: () => void) {}

  /**
   * Take the lock of a folder that exists.
   *
   * @throws StorageInUseError another process, or this one, holds it.
   */
  static async take(folder: string): Promise<FolderLock> {
    return process.platform === "linux" ? takeName(folder) : takeFile(folder);
  }

  /** Give the folder free. */
  release(): void {
    this.giveFree();
  }

  /** @internal */
  static of(giveFree: () => void): FolderLock {
    return new FolderLock(giveFree);
  }
}

/** The name is that of the folder itself, whatever path leads to it. */
function takeName(folder: string): Promise<FolderLock> {
  const { dev, ino } = statSync(folder);
  const server = createServer((socket) => socket.destroy());
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      reject(error.code === "EADDRINUSE" ? inUse(folder) : error);
    });
    server.listen({ path: `\0peerplan/${dev}/${ino}` }, () => {
      server.unref();
      resolve(FolderLock.of(() => server.close()));
    });
  });
}

function takeFile(folder: string): FolderLock {
  try {
    const file = openSync(join(folder, "lock"), READ_WRITE_CREATE | EXCLUSIVE, 0o600);
    return FolderLock.of(() => closeSync(file));
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    throw ["EAGAIN", "EWOULDBLOCK", "EBUSY"].includes(code) ? inUse(folder) : error;
  }
}

function inUse(folder: string): StorageInUseError {
  return new StorageInUseError(`storage ${folder}: in use by another node; each node needs its own folder`);
}
