/** Members of a zip archive, sizes first: stored or deflated, below 4 GiB, not encrypted. Every byte is hostile. */

import { UnusableDataError } from "../node/errors.js";
import type { Bytes } from "../protocol/bytes.js";
import { shown } from "./fields.js";

/** One entry of the archive's directory. */
export interface Member {
  readonly name: string;
  /** Bytes when unpacked, as the directory says; `unpack` holds it to that. */
  readonly size: number;
  readonly method: number;
  readonly checksum: number;
  readonly packed: Bytes;
}

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const LOCAL = 0x04034b50;
const END_BYTES = 22;
const LONGEST_COMMENT = 0xffff;
const STORED = 0;
const DEFLATED = 8;
const IS_ENCRYPTED = 1;

/**
 * The archive's entries.
 *
 * @throws UnusableDataError it is no zip archive of the kind numpy writes.
 */
export function membersOf(archive: Bytes, where: string, most: number): Member[] {
  const view = new DataView(archive.buffer, archive.byteOffset, archive.length);
  const end = endOf(view, where);
  const count = view.getUint16(end + 10, true);
  const directory = view.getUint32(end + 16, true);
  if (view.getUint16(end + 4, true) !== 0 || view.getUint16(end + 8, true) !== count) {
    throw new UnusableDataError(`${where}: is one part of several, expected a whole archive`);
  }
  if (count < 1 || count > most) throw new UnusableDataError(`${where}: ${count} arrays, expected 1 to ${most}`);
  const members: Member[] = [];
  try {
    for (let at = directory; members.length < count; ) {
      const { member, next } = entryAt(archive, view, at, where);
      members.push(member);
      at = next;
    }
  } catch (error) {
    if (error instanceof RangeError) throw new UnusableDataError(`${where}: its directory points outside its ${archive.length} bytes`);
    throw error;
  }
  return members;
}

/**
 * The bytes of a member, at most what the directory says.
 *
 * @throws UnusableDataError it unpacks to another size or checksum, or cannot be unpacked.
 */
export async function unpack(member: Member, where: string): Promise<Bytes> {
  const data = member.method === STORED ? member.packed : await inflate(member, where);
  if (data.length !== member.size) wrongSize(member, `${data.length}`, where);
  const checksum = crc32(data);
  if (checksum !== member.checksum) {
    throw new UnusableDataError(`${where}: ${shown(member.name)} has checksum ${checksum}, its entry says ${member.checksum}; is the file damaged?`);
  }
  return data;
}

async function inflate(member: Member, where: string): Promise<Bytes> {
  const out = new Uint8Array(member.size);
  let filled = 0;
  const reader = new Blob([member.packed]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  for (;;) {
    let part: ReadableStreamReadResult<Bytes>;
    try {
      part = await reader.read();
    } catch (error) {
      throw new UnusableDataError(`${where}: ${shown(member.name)} cannot be unpacked: ${String(error)}`);
    }
    if (part.done) return out.subarray(0, filled);
    if (filled + part.value.length > out.length) {
      await reader.cancel();
      wrongSize(member, "more", where);
    }
    out.set(part.value, filled);
    filled += part.value.length;
  }
}

function wrongSize(member: Member, got: string, where: string): never {
  throw new UnusableDataError(`${where}: ${shown(member.name)} unpacks to ${got} bytes, its entry says ${member.size}`);
}

function endOf(view: DataView, where: string): number {
  const first = Math.max(0, view.byteLength - END_BYTES - LONGEST_COMMENT);
  for (let at = view.byteLength - END_BYTES; at >= first; at--) {
    const isEnd = view.getUint32(at, true) === END && at + END_BYTES + view.getUint16(at + 20, true) === view.byteLength;
    if (isEnd) return at;
  }
  throw new UnusableDataError(`${where}: is no .npz file: no zip directory at its end`);
}

function entryAt(archive: Bytes, view: DataView, at: number, where: string): { member: Member; next: number } {
  if (view.getUint32(at, true) !== ENTRY) throw new UnusableDataError(`${where}: byte ${at} begins no directory entry`);
  const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true)) as [number, number, number];
  const next = at + 46 + nameBytes + extraBytes + commentBytes;
  if (next > archive.length) throw new RangeError("entry");
  const name = new TextDecoder().decode(archive.subarray(at + 46, at + 46 + nameBytes));
  const [checksum, packedSize, size, local] = [16, 20, 24, 42].map((offset) => view.getUint32(at + offset, true)) as [
    number,
    number,
    number,
    number,
  ];
  const method = view.getUint16(at + 10, true);
  if ((view.getUint16(at + 8, true) & IS_ENCRYPTED) !== 0) throw new UnusableDataError(`${where}: ${shown(name)} is encrypted`);
  if (method !== STORED && method !== DEFLATED) {
    throw new UnusableDataError(`${where}: ${shown(name)} is packed by method ${method}, expected stored (0) or deflated (8)`);
  }
  if (size === 0xffffffff || packedSize === 0xffffffff || local === 0xffffffff) {
    throw new UnusableDataError(`${where}: ${shown(name)} has 4 GiB or more`);
  }
  if (view.getUint32(local, true) !== LOCAL) throw new UnusableDataError(`${where}: ${shown(name)} is not where the directory says`);
  // the directory alone is believed about sizes: numpy writes them there, and leaves the local header's to zip64
  const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
  if (start + packedSize > archive.length) throw new RangeError("data");
  return { member: { name, size, method, checksum, packed: archive.subarray(start, start + packedSize) }, next };
}

const TABLE = Uint32Array.from({ length: 256 }, (_, i) => {
  let value = i;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** CRC-32 as zip archives use it. */
function crc32(data: Bytes): number {
  let value = 0xffffffff;
  for (const byte of data) value = (TABLE[(value ^ byte) & 0xff] as number) ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}
