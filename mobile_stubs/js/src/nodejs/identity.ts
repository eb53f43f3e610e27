/** A node's identity in a file that only its owner can read. */

import { mkdir, open, readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { fromHex, toHex } from "../protocol/bytes.js";
import { randomBytes } from "../protocol/crypto.js";
import { Identity } from "../protocol/identity.js";
import { StorageError } from "../node/errors.js";

/**
 * The identity in a file of 64 hexadecimal digits; it is made, with mode 0600, where there is none.
 *
 * @throws StorageError the file cannot be read or made, or holds something else.
 */
export async function loadOrCreateIdentity(path: string): Promise<Identity> {
  try {
    const text = await readFile(path, "utf8").catch(() => null);
    if (text !== null) return await Identity.fromSeed(fromHex(text.trim(), "identity file"));
    const seed = randomBytes(32);
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const file = await open(path, "wx", 0o600);
    try {
      await file.writeFile(`${toHex(seed)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    return await Identity.fromSeed(seed);
  } catch (error) {
    throw new StorageError(`identity ${path}: ${error instanceof Error ? error.message : "unreadable"}`);
  }
}
