/** Datasets from .csv files: a header row, then one example a row; columns are scalars or grouped into arrays. */

import { UnusableDataError } from "../node/errors.js";
import type { Dataset } from "../plans/data.js";
import { Column } from "./column.js";
import { checkField, checkFields, checkName, DTYPES, type DType, itemSize, MAX_FIELDS, shown } from "./fields.js";
import { holdOut } from "./hold-out.js";
import { records } from "./records.js";
import { type Source, sourceName } from "./source.js";

/** Text of one table: more does not fit into one string of every engine. */
export const MAX_CSV_BYTES = 256 << 20;

/** Columns that become one field. */
export interface ColumnGroup {
  /** Names or patterns ("pixel_*"); matches of a pattern stand in the order of the header. */
  readonly columns: readonly string[];
  /** float32 by default. */
  readonly dtype?: DType;
  /** Shape of one example, row by row; without it a vector of all columns, [] is a scalar of one column. */
  readonly shape?: readonly number[];
}

/** How the columns of a table become fields. */
export interface CsvOptions {
  /** Name of the dataset. */
  readonly name: string;
  /** Columns that are answers: each a scalar field of its own name, and all other columns one vector, `inputs`. */
  readonly targets?: string | readonly string[];
  /** Name of that vector, "features" by default; float32. */
  readonly inputs?: string;
  /** Groups by field name. A column in none is a scalar: int64 where every cell is a whole number, else float32. */
  readonly columns?: Readonly<Record<string, ColumnGroup>>;
  /** Names or patterns of columns to leave out. */
  readonly ignore?: readonly string[];
  /** The part kept for evaluation and never trained on: 0 (the default) up to, not including, 1. */
  readonly holdOut?: number;
  readonly maxBytes?: number;
}

/**
 * A dataset of the rows of a UTF-8 table (RFC 4180).
 *
 * @throws UnusableDataError a cell, row or header that does not fit; names row, column and what was expected.
 */
export async function fromCsv(source: Source, options: CsvOptions): Promise<Dataset> {
  const { name, maxBytes = MAX_CSV_BYTES } = options;
  const where = sourceName(source, "CSV");
  checkName(name, "dataset name");
  const rows = records(await textOf(source, where, maxBytes), where);
  const header = headerOf(rows, where);
  const columns = fieldsOf(header, options, where);
  let taken = 0;
  for (const { line, cells } of rows) {
    if (cells.length === 0) continue; // a blank line, as editors leave at the end
    if (cells.length !== header.length) {
      throw new UnusableDataError(`${where}: row ${line} has ${cells.length} columns, expected ${header.length} as in the header`);
    }
    for (const column of columns) taken += column.add(cells, line);
    if (taken > maxBytes) throw new UnusableDataError(`${where}: its values take more than ${maxBytes} bytes (reached in row ${line})`);
  }
  const fields = Object.fromEntries(columns.map((column) => [column.name, column.finish()]));
  checkFields(fields, where);
  return holdOut({ name, fields }, options.holdOut ?? 0, where);
}

/**
 * The names of a table's columns.
 *
 * @throws UnusableDataError there is no header.
 */
export async function csvHeader(source: Source, maxBytes = MAX_CSV_BYTES): Promise<readonly string[]> {
  const where = sourceName(source, "CSV");
  return headerOf(records(await textOf(source, where, maxBytes), where), where);
}

async function textOf(source: Source, where: string, maxBytes: number): Promise<string> {
  const size = typeof source === "string" ? source.length : source instanceof Blob ? source.size : source.byteLength;
  if (size > maxBytes) throw new UnusableDataError(`${where}: ${size} bytes, at most ${maxBytes} are loaded`);
  if (typeof source === "string") return source.replace(/^\uFEFF/, "");
  const bytes = source instanceof Blob ? await source.arrayBuffer() : source;
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new UnusableDataError(`${where}: is no UTF-8 text`);
  }
}

function headerOf(rows: Iterator<{ cells: readonly string[] }>, where: string): readonly string[] {
  const header = rows.next().value?.cells as readonly string[] | undefined;
  if (header === undefined || header.length === 0) {
    throw new UnusableDataError(`${where}: row 1 is empty, expected a header with the names of the columns`);
  }
  const repeated = header.find((column, i) => header.indexOf(column) !== i);
  if (repeated !== undefined) throw new UnusableDataError(`${where}: column ${shown(repeated)} stands twice in the header`);
  return header;
}

function fieldsOf(header: readonly string[], options: CsvOptions, where: string): Column[] {
  const owner = new Map<number, string>();
  for (const column of matches(header, options.ignore ?? [], `${where}: ignore`)) owner.set(column, "ignore");
  const fields: Column[] = [];
  const group = (name: string, { columns, dtype = "float32", shape }: ColumnGroup): void => {
    const what = `${where}: field ${shown(name)}`;
    const wanted = matches(header, columns, what);
    for (const column of wanted) {
      const taker = owner.get(column);
      if (taker !== undefined) throw new UnusableDataError(`${what}: column ${shown(header[column] as string)} is already taken by ${shown(taker)}`);
      owner.set(column, name);
    }
    fields.push(new Column(name, dtype, shapeOf(dtype, shape, wanted.length, what), wanted, header, where));
  };
  for (const [name, given] of Object.entries(options.columns ?? {})) group(name, given);
  const { targets } = options;
  if (targets !== undefined) {
    const kept = new Set(matches(header, typeof targets === "string" ? [targets] : targets, `${where}: targets`));
    const rest = header.filter((_, column) => !kept.has(column) && !owner.has(column));
    group(options.inputs ?? "features", { columns: rest });
  }
  const scalars = header.flatMap((column, i) => (owner.has(i) ? [] : [{ column, i }]));
  for (const { column } of scalars) {
    if (fields.some((field) => field.name === column)) {
      throw new UnusableDataError(`${where}: field ${shown(column)} is a group and also a column outside it`);
    }
  }
  const count = fields.length + scalars.length;
  if (count < 1 || count > MAX_FIELDS) {
    throw new UnusableDataError(`${where}: ${count} fields, expected 1 to ${MAX_FIELDS}; group columns into one field`);
  }
  const all = [...fields, ...scalars.map(({ column, i }) => new Column(column, null, [], [i], header, where))];
  for (const { name, shape } of all) checkField(name, [1, ...shape], where);
  return all;
}

function matches(header: readonly string[], patterns: readonly string[], where: string): number[] {
  const found = new Set<number>();
  for (const pattern of patterns) {
    const exact = header.indexOf(pattern);
    const hits = exact >= 0 ? [exact] : header.flatMap((name, i) => (fits(name, pattern) ? [i] : []));
    if (hits.length === 0) {
      const some = header.slice(0, 8).map((column) => column.slice(0, 40)).join(", ") + (header.length > 8 ? ", ..." : "");
      throw new UnusableDataError(`${where}: no column matches ${shown(pattern)}; the file has ${some}`);
    }
    for (const hit of hits) found.add(hit);
  }
  return [...found];
}

/** Whether a name fits a pattern in which `*` stands for anything and `?` for one character. */
function fits(name: string, pattern: string): boolean {
  const source = pattern.replace(/[.+^${}()|[\]\\]/g, "\\$&").replace(/\*+/g, ".*").replaceAll("?", ".");
  return new RegExp(`^${source}$`, "su").test(name);
}

function shapeOf(dtype: DType, given: readonly number[] | undefined, count: number, what: string): readonly number[] {
  if (!(DTYPES as readonly string[]).includes(dtype)) {
    throw new UnusableDataError(`${what}: dtype ${shown(dtype)}, expected one of ${DTYPES.join(", ")}`);
  }
  if (count === 0) throw new UnusableDataError(`${what}: lists no columns`);
  const shape = given ?? [count];
  if (shape.some((size) => !Number.isInteger(size) || size < 1) || itemSize(shape) !== count) {
    throw new UnusableDataError(`${what}: shape [${shape}] does not hold its ${count} columns`);
  }
  return shape;
}
