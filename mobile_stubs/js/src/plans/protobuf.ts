/** Protocol buffers on the wire, just enough to look into an ONNX model before it is run. Every byte is hostile. */

import type { Bytes } from "../protocol/bytes.js";
import { EncodingError } from "../protocol/errors.js";

/** A field as it came: a number for varints and fixed values, bytes for the rest. */
type Value = bigint | Bytes;

/** The fields of one message by their number. */
export class Fields {
  private readonly values = new Map<number, Value[]>();

  /**
   * Split a message into its fields.
   *
   * @throws EncodingError it is no protocol buffer.
   */
  constructor(data: Bytes) {
    let at = 0;
    const varint = (): bigint => {
      let value = 0n;
      for (let shift = 0n; shift < 70n; shift += 7n) {
        const byte = data[at++];
        if (byte === undefined) throw new EncodingError("no ONNX model: a number has no end");
        value |= BigInt(byte & 0x7f) << shift;
        if (byte < 0x80) return BigInt.asUintN(64, value);
      }
      throw new EncodingError("no ONNX model: a number is too long");
    };
    const take = (size: number): Bytes => {
      if (size > data.length - at) throw new EncodingError(`no ONNX model: expected ${size} more bytes, got ${data.length - at}`);
      at += size;
      return data.subarray(at - size, at);
    };
    while (at < data.length) {
      const tag = Number(varint());
      const [number, wire] = [Math.floor(tag / 8), tag % 8];
      if (number === 0) throw new EncodingError("no ONNX model: a field has number 0");
      const list = this.values.get(number) ?? [];
      this.values.set(number, list);
      if (wire === 0) list.push(varint());
      else if (wire === 1) list.push(take(8));
      else if (wire === 2) list.push(take(Number(varint())));
      else if (wire === 5) list.push(take(4));
      else throw new EncodingError(`no ONNX model: wire type ${wire}`);
    }
  }

  /** Whether a field is there. */
  has(number: number): boolean {
    return this.values.has(number);
  }

  /** A number that stands at most once: two would be read differently by different readers. */
  integer(number: number, otherwise = 0): number {
    const found = this.single(number);
    if (found === null) return otherwise;
    if (typeof found !== "bigint") throw new EncodingError(`no ONNX model: field ${number} is no number`);
    return Number(BigInt.asIntN(64, found));
  }

  /** Text that stands at most once. */
  text(number: number): string {
    const found = this.single(number);
    if (found === null) return "";
    if (typeof found === "bigint") throw new EncodingError(`no ONNX model: field ${number} is no text`);
    return new TextDecoder().decode(found);
  }

  /** Bytes that stand at most once; null where there are none. */
  bytes(number: number): Bytes | null {
    const found = this.single(number);
    if (typeof found === "bigint") throw new EncodingError(`no ONNX model: field ${number} is no bytes`);
    return found;
  }

  /** A message inside; null where there is none. */
  message(number: number): Fields | null {
    const found = this.bytes(number);
    return found === null ? null : new Fields(found);
  }

  /** All messages of a repeated field. */
  messages(number: number): Fields[] {
    return (this.values.get(number) ?? []).map((value) => {
      if (typeof value === "bigint") throw new EncodingError(`no ONNX model: field ${number} is no message`);
      return new Fields(value);
    });
  }

  /** All numbers of a repeated field, packed or not. */
  integers(number: number): number[] {
    return (this.values.get(number) ?? []).flatMap((value) => {
      if (typeof value === "bigint") return [Number(BigInt.asIntN(64, value))];
      return unpackVarints(value);
    });
  }

  private single(number: number): Value | null {
    const list = this.values.get(number) ?? [];
    if (list.length > 1) throw new EncodingError(`no ONNX model: field ${number} stands ${list.length} times`);
    return list[0] ?? null;
  }
}

function unpackVarints(data: Bytes): number[] {
  const out: number[] = [];
  let value = 0n;
  let shift = 0n;
  for (const byte of data) {
    if (shift > 63n) throw new EncodingError("no ONNX model: a number is too long");
    value |= BigInt(byte & 0x7f) << shift;
    shift += 7n;
    if (byte >= 0x80) continue;
    out.push(Number(BigInt.asIntN(64, value)));
    value = shift = 0n;
  }
  if (shift !== 0n) throw new EncodingError("no ONNX model: a number has no end");
  return out;
}
