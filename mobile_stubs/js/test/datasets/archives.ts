/** Writes .npy and .npz bytes for tests, with every number of their headers open to lies. */

export interface Entry {
  name: string;
  data: Uint8Array<ArrayBuffer>;
  deflate?: boolean;
  /** What the directory says instead of the truth. */
  lie?: { size?: number; packedSize?: number; checksum?: number; method?: number; flags?: number; local?: number };
}

const text = (value: string) => new TextEncoder().encode(value);

export function npy(descr: string, shape: string, values: ArrayBufferView<ArrayBuffer>, order = "False"): Uint8Array<ArrayBuffer> {
  const header = `{'descr': '${descr}', 'fortran_order': ${order}, 'shape': ${shape}, }\n`;
  return npyOf(header, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
}

export function npyOf(header: string, body: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const head = text(header);
  const length = new Uint8Array([head.length & 255, head.length >> 8]);
  return joined(new Uint8Array([0x93, ...text("NUMPY"), 1, 0]), length, head, body);
}

export async function zip(entries: readonly Entry[]): Promise<ArrayBuffer> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const directory: Uint8Array<ArrayBuffer>[] = [];
  let at = 0;
  for (const { name, data, deflate = false, lie = {} } of entries) {
    const packed = deflate ? await compressed(data) : data;
    const method = lie.method ?? (deflate ? 8 : 0);
    const checksum = lie.checksum ?? crc32(data);
    // as numpy does: the local header leaves sizes to its zip64 field
    const local = joined(words(0x04034b50), shorts(45, 0, method, 0, 0), words(checksum, 0xffffffff, 0xffffffff), shorts(name.length, 20), text(name), new Uint8Array(20));
    directory.push(
      joined(
        words(0x02014b50),
        shorts(45, 45, lie.flags ?? 0, method, 0, 0),
        words(checksum, lie.packedSize ?? packed.length, lie.size ?? data.length),
        shorts(name.length, 0, 0, 0, 0),
        words(0, lie.local ?? at),
        text(name),
      ),
    );
    parts.push(local, packed);
    at += local.length + packed.length;
  }
  const listing = joined(...directory);
  const end = joined(words(0x06054b50), shorts(0, 0, entries.length, entries.length), words(listing.length, at), shorts(0));
  return joined(...parts, listing, end).buffer;
}

async function compressed(data: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([data]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function joined(...parts: readonly Uint8Array<ArrayBuffer>[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

const shorts = (...values: number[]) => new Uint8Array(Uint16Array.from(values).buffer);
const words = (...values: number[]) => new Uint8Array(Uint32Array.from(values).buffer);

/** Bit by bit, from the polynomial: another way than the code under test. */
function crc32(data: Uint8Array): number {
  let value = 0xffffffff;
  for (const byte of data) {
    for (let bit = 0; bit < 8; bit++) {
      const isOdd = ((value ^ (byte >> bit)) & 1) === 1;
      value = (value >>> 1) ^ (isOdd ? 0xedb88320 : 0);
    }
  }
  return ~value >>> 0;
}
