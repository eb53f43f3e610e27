/** Datasets from numpy's .npz files; every size is known from directory and headers before a value is read. */

import { UnusableDataError } from "../node/errors.js";
import type { TensorData } from "../node/platform.js";
import type { Dataset, FieldData } from "../plans/data.js";
import type { Bytes } from "../protocol/bytes.js";
import { arrayOf, checkField, checkFields, checkName, type DType, itemSize, MAX_DATASET_BYTES, MAX_FIELDS, shown } from "./fields.js";
import { holdOut } from "./hold-out.js";
import { type Source, sourceName } from "./source.js";
import { membersOf, unpack } from "./zip.js";

/** How a .npz file becomes a dataset. */
export interface NpzOptions {
  /** Name of the dataset. */
  readonly name: string;
  /** The part kept for evaluation and never trained on: 0 (the default) up to, not including, 1. */
  readonly holdOut?: number;
  /** Bytes of the file and of its arrays at most. */
  readonly maxBytes?: number;
}

const HEADER_BYTES = 16 << 10;
const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
const CODES: Readonly<Record<string, DType>> = { f4: "float32", f8: "float64", i4: "int32", i8: "int64", u1: "uint8", b1: "bool" };
const ITEM_BYTES: Readonly<Record<DType, number>> = { float32: 4, float64: 8, int32: 4, int64: 8, uint8: 1, bool: 1 };
const PAIR = String.raw`'(descr|fortran_order|shape)': *('[^']{1,16}'|True|False|\([0-9, ]*\))`;
const HEADER = new RegExp(String.raw`^\{ *${PAIR}, *${PAIR}, *${PAIR},? *\} *\n$`);

/**
 * A dataset of the arrays in a .npz file, each a field by its name.
 *
 * @throws UnusableDataError no .npz, an object array, a dtype or shape outside a dataset's, NaN, or too many bytes.
 */
export async function fromNpz(source: Exclude<Source, string>, options: NpzOptions): Promise<Dataset> {
  const { name, maxBytes = MAX_DATASET_BYTES } = options;
  const where = sourceName(source, "npz");
  checkName(name, "dataset name");
  const size = source instanceof Blob ? source.size : source.byteLength;
  if (size > maxBytes) throw new UnusableDataError(`${where}: ${size} bytes, at most ${maxBytes} are loaded`);
  const archive = new Uint8Array(source instanceof Blob ? await source.arrayBuffer() : source);
  const members = membersOf(archive, where, MAX_FIELDS);
  for (const member of members) {
    if (!member.name.endsWith(".npy")) throw new UnusableDataError(`${where}: holds ${shown(member.name, 128)}, expected .npy members alone`);
  }
  if (new Set(members.map((member) => member.name)).size < members.length) {
    throw new UnusableDataError(`${where}: two arrays have the same name`);
  }
  const total = members.reduce((sum, member) => sum + member.size, 0);
  if (total > maxBytes + HEADER_BYTES * members.length) {
    throw new UnusableDataError(`${where}: ${total} bytes when unpacked, at most ${maxBytes} are loaded`);
  }
  const fields: Record<string, FieldData> = {};
  for (const member of members) {
    const field = member.name.slice(0, -".npy".length);
    fields[field] = arrayIn(await unpack(member, where), field, where);
  }
  checkFields(fields, where);
  return holdOut({ name, fields }, options.holdOut ?? 0, where);
}

/** The array of one .npy member. */
function arrayIn(member: Bytes, name: string, where: string): FieldData {
  const { dtype, isSwapped, isFortran, shape, length } = headerOf(member, `${where}: field ${shown(name)}`);
  checkField(name, shape, where);
  const size = itemSize(shape) * ITEM_BYTES[dtype];
  if (member.length !== length + size) {
    throw new UnusableDataError(
      `${where}: field ${shown(name)} needs ${size} bytes for ${dtype}[${shape}], its entry holds ${member.length - length}`,
    );
  }
  const bytes = member.slice(length);
  if (isSwapped) swap(bytes, ITEM_BYTES[dtype]);
  const data = view(dtype, bytes.buffer);
  if (dtype === "bool" && data.some((value) => value > 1)) {
    throw new UnusableDataError(`${where}: field ${shown(name)} is bool and holds other bytes than 0 and 1`);
  }
  return { dtype, shape: shape.slice(1), data: isFortran && shape.length > 1 ? toRows(dtype, data, shape) : data };
}

function headerOf(member: Bytes, what: string) {
  const version = `${member[6]}.${member[7]}`;
  if (!MAGIC.every((byte, i) => member[i] === byte)) throw new UnusableDataError(`${what} is no .npy array`);
  if (version !== "1.0" && version !== "2.0") throw new UnusableDataError(`${what}: npy format ${version}, expected 1.0 or 2.0`);
  const start = version === "1.0" ? 10 : 12;
  if (member.length < start) throw new UnusableDataError(`${what}: its header is cut off`);
  const lengths = new DataView(member.buffer, member.byteOffset, member.length);
  const length = start + (version === "1.0" ? lengths.getUint16(8, true) : lengths.getUint32(8, true));
  if (length > Math.min(HEADER_BYTES, member.length)) {
    throw new UnusableDataError(`${what}: a header of ${length} bytes, expected at most ${Math.min(HEADER_BYTES, member.length)}`);
  }
  const text = new TextDecoder("latin1").decode(member.subarray(start, length));
  const found = HEADER.exec(text);
  const told = new Map(found === null ? [] : [1, 3, 5].map((i) => [found[i], found[i + 1] as string]));
  const [descr, order, shape] = [told.get("descr"), told.get("fortran_order"), told.get("shape")];
  if (descr === undefined || order === undefined || shape === undefined || !/^(True|False)$/.test(order) || !shape.startsWith("(")) {
    throw new UnusableDataError(`${what}: a header that numpy does not write for plain arrays: ${shown(text, 80)}`);
  }
  const dtype = CODES[descr.slice(2, -1)];
  if (dtype === undefined || !/^'[<>|=]/.test(descr)) {
    throw new UnusableDataError(`${what} is ${descr}, expected one of ${Object.values(CODES).join(", ")}`);
  }
  const sizes = shape.slice(1, -1).split(",").map((part) => part.trim());
  if (sizes.at(-1) === "") sizes.pop();
  if (sizes.some((part) => !/^\d{1,15}$/.test(part))) throw new UnusableDataError(`${what}: shape ${shown(shape)} is none`);
  return { dtype, isSwapped: descr[1] === ">", isFortran: order === "True", shape: sizes.map(Number), length };
}

function view(dtype: DType, buffer: ArrayBuffer): TensorData {
  switch (dtype) {
    case "float32":
      return new Float32Array(buffer);
    case "float64":
      return new Float64Array(buffer);
    case "int32":
      return new Int32Array(buffer);
    case "int64":
      return new BigInt64Array(buffer);
    case "uint8":
    case "bool":
      return new Uint8Array(buffer);
  }
}

function swap(bytes: Bytes, itemBytes: number): void {
  for (let at = 0; at < bytes.length; at += itemBytes) bytes.subarray(at, at + itemBytes).reverse();
}

/** Column-major values as row-major ones. */
function toRows(dtype: DType, data: TensorData, shape: readonly number[]): TensorData {
  const out = arrayOf(dtype, data.length);
  const strides = shape.map((_, axis) => itemSize(shape.slice(0, axis)));
  const place = shape.map(() => 0);
  for (let i = 0; i < data.length; i++) {
    out[i] = data[place.reduce((sum, index, axis) => sum + index * (strides[axis] as number), 0)] as never;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      place[axis] = (place[axis] as number) + 1;
      if ((place[axis] as number) < (shape[axis] as number)) break;
      place[axis] = 0;
    }
  }
  return out;
}
