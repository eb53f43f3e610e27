/** Cells of one field, read as rows come. */

import { UnusableDataError } from "../node/errors.js";
import type { FieldData } from "../plans/data.js";
import { arrayOf, type DType, shown } from "./fields.js";

const TRUTH: ReadonlyMap<string, number> = new Map([["0", 0], ["1", 1], ["false", 0], ["true", 1]]);
const LARGEST_FLOAT32 = (2 - 2 ** -23) * 2 ** 127;
const RANGES = {
  uint8: [0n, 255n],
  int32: [-(1n << 31n), (1n << 31n) - 1n],
  int64: [-(1n << 63n), (1n << 63n) - 1n],
} as const;
/** Digits that Python turns into a whole number at most. */
const WHOLE = /^[+-]?[0-9]{1,4300}$/;
const NUMBER = /^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$/;
const FIRST_ROOM = 1024;

/** One field of a table. A dtype of null begins as int64 and widens to float32 at the first cell that is no integer. */
export class Column {
  private dtype: DType;
  private readonly mayWiden: boolean;
  private values: Float64Array | BigInt64Array;
  private filled = 0;

  constructor(
    readonly name: string,
    dtype: DType | null,
    readonly shape: readonly number[],
    private readonly columns: readonly number[],
    private readonly header: readonly string[],
    private readonly where: string,
  ) {
    this.dtype = dtype ?? "int64";
    this.mayWiden = dtype === null;
    this.values = this.dtype === "int64" ? new BigInt64Array(FIRST_ROOM) : new Float64Array(FIRST_ROOM);
  }

  /**
   * Take this field's cells of one row; gives the bytes they take.
   *
   * @throws UnusableDataError a cell is no number of this field.
   */
  add(cells: readonly string[], line: number): number {
    this.makeRoom();
    for (const column of this.columns) {
      const cell = cells[column] as string;
      let value = this.parse(cell);
      if (value === null && this.mayWiden && this.dtype === "int64") {
        this.widen();
        value = this.parse(cell);
      }
      if (value === null) {
        const expected = this.mayWiden ? "a finite number" : this.dtype;
        const column_ = shown(this.header[column] as string);
        throw new UnusableDataError(`${this.where}: row ${line}, column ${column_}: expected ${expected}, got ${shown(cell)}`);
      }
      this.values[this.filled++] = value as never;
    }
    return 8 * this.columns.length;
  }

  /** The field, once all rows were added. */
  finish(): FieldData {
    const data = arrayOf(this.dtype, this.filled);
    data.set(this.values.subarray(0, this.filled) as never);
    return { dtype: this.dtype, shape: this.shape, data };
  }

  /** The cell's number; null where it is none of this dtype. */
  private parse(cell: string): number | bigint | null {
    const { dtype } = this;
    const text = stripped(cell);
    if (dtype === "bool") return TRUTH.get(text.toLowerCase()) ?? null;
    if (dtype === "float32" || dtype === "float64") {
      const value = NUMBER.test(text) ? Number(text) : Number.NaN;
      const most = dtype === "float32" ? LARGEST_FLOAT32 : Number.MAX_VALUE;
      return Math.abs(value) <= most ? value : null;
    }
    if (!WHOLE.test(text)) return null;
    const value = BigInt(text.startsWith("+") ? text.slice(1) : text);
    const [low, high] = RANGES[dtype];
    if (value < low || value > high) return null;
    return dtype === "int64" ? value : Number(value);
  }

  private widen(): void {
    this.dtype = "float32";
    this.values = Float64Array.from(this.values as BigInt64Array, Number);
  }

  private makeRoom(): void {
    if (this.filled + this.columns.length <= this.values.length) return;
    const larger = new (this.values.constructor as typeof Float64Array)(2 * this.values.length + this.columns.length);
    larger.set(this.values as Float64Array);
    this.values = larger;
  }
}

/** Without the space around it that Python strips too, and no more: another script's space is refused by both. */
function stripped(cell: string): string {
  let [start, end] = [0, cell.length];
  while (start < end && isSpace(cell.charCodeAt(start))) start++;
  while (end > start && isSpace(cell.charCodeAt(end - 1))) end--;
  return cell.slice(start, end);
}

/** ASCII space: tab to carriage return, the four separators, and the space itself. */
function isSpace(code: number): boolean {
  return (code >= 0x09 && code <= 0x0d) || (code >= 0x1c && code <= 0x20);
}
