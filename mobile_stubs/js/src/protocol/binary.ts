/** Little-endian fields without padding (spec 01 §2): every length is checked before anything is taken. */

import type { Bytes } from "./bytes.js";
import { concat } from "./bytes.js";
import { EncodingError } from "./errors.js";

/** Appends little-endian integers and byte strings; `bytes()` ends it. */
export class Writer {
  private readonly parts: Uint8Array[] = [];

  /** Append `value` as `size` bytes: 1, 2 or 4. */
  uint(value: number, size: 1 | 2 | 4): this {
    if (!Number.isInteger(value) || value < 0 || value >= 2 ** (8 * size)) {
      throw new EncodingError(`${value} does not fit in ${size} unsigned bytes`);
    }
    const part = new Uint8Array(size);
    for (let i = 0; i < size; i++) part[i] = Math.floor(value / 2 ** (8 * i));
    this.parts.push(part);
    return this;
  }

  /** Append eight bytes. */
  u64(value: bigint): this {
    if (value < 0n || value >= 1n << 64n) throw new EncodingError(`${value} does not fit in 8 unsigned bytes`);
    const part = new Uint8Array(8);
    new DataView(part.buffer).setBigUint64(0, value, true);
    this.parts.push(part);
    return this;
  }

  /** Append bytes as they are; `size`, where given, is the length they must have. */
  raw(data: Uint8Array, size?: number): this {
    if (size !== undefined && data.length !== size) {
      throw new EncodingError(`expected ${size} bytes, got ${data.length}`);
    }
    this.parts.push(data);
    return this;
  }

  /** Everything appended. */
  bytes(): Bytes {
    return concat(...this.parts);
  }
}

/** Reads what `Writer` wrote; `what` names the document in errors. */
export class Reader {
  private at = 0;

  constructor(
    private readonly data: Bytes,
    private readonly what: string,
  ) {}

  /** Bytes not read yet. */
  get remaining(): number {
    return this.data.length - this.at;
  }

  /** The next `size` bytes as an unsigned integer: 1, 2 or 4. */
  uint(size: 1 | 2 | 4): number {
    let value = 0;
    const part = this.view(size);
    for (let i = size - 1; i >= 0; i--) value = value * 256 + (part[i] as number);
    return value;
  }

  /** The next eight bytes. */
  u64(): bigint {
    const part = this.view(8);
    return new DataView(part.buffer, part.byteOffset, 8).getBigUint64(0, true);
  }

  /** The next `size` bytes, copied. */
  raw(size: number): Bytes {
    return this.view(size).slice();
  }

  /** The next `size` bytes without a copy. */
  view(size: number): Bytes {
    if (size > this.remaining) {
      throw new EncodingError(`${this.what}: expected ${size} more bytes, got ${this.remaining}`);
    }
    this.at += size;
    return this.data.subarray(this.at - size, this.at);
  }

  /** Everything read so far. */
  consumed(): Bytes {
    return this.data.subarray(0, this.at);
  }

  /**
   * Check that nothing is left over.
   *
   * @throws EncodingError bytes are left.
   */
  end(): void {
    if (this.remaining > 0) throw new EncodingError(`${this.what}: ${this.remaining} bytes too many`);
  }
}
