/** Records of comma-separated text (RFC 4180): quoted cells, doubled quotes, CRLF, LF or CR. */

import { UnusableDataError } from "../node/errors.js";

/** Characters of one cell, as Python's reader has it. */
const MAX_CELL = 131_072;

/** A row of the text; `line` is the one it begins in, from 1. A blank line has no cells. */
export interface Record {
  readonly line: number;
  readonly cells: readonly string[];
}

/**
 * The records of a text, one after the other.
 *
 * @throws UnusableDataError a quote that does not end, something after a closing quote, or a cell without end.
 */
export function* records(text: string, where: string): Generator<Record, undefined, void> {
  let at = 0;
  let line = 1;
  while (at < text.length) {
    const start = line;
    const cells: string[] = [];
    const isBlank = text[at] === "\n" || text[at] === "\r";
    while (!isBlank) {
      let cell: string;
      if (text[at] === '"') {
        const end = closing(text, at, where, start);
        cell = text.slice(at + 1, end).replaceAll('""', '"');
        line += breaks(text, at, end);
        at = end + 1;
        if (at < text.length && !",\r\n".includes(text[at] as string)) {
          throw new UnusableDataError(`${where}: row ${start}: expected a comma or the end of the row after a quoted cell`);
        }
      } else {
        const begin = at;
        while (at < text.length && !",\r\n".includes(text[at] as string)) at++;
        cell = text.slice(begin, at);
      }
      if (cell.length > MAX_CELL) throw new UnusableDataError(`${where}: row ${start}: a cell of ${cell.length} characters, expected at most ${MAX_CELL}`);
      cells.push(cell);
      if (text[at] !== ",") break;
      at++;
    }
    if (at < text.length) at += text[at] === "\r" && text[at + 1] === "\n" ? 2 : 1;
    line++;
    yield { line: start, cells };
  }
  return undefined;
}

function closing(text: string, open: number, where: string, line: number): number {
  for (let at = open + 1; ; at += 2) {
    at = text.indexOf('"', at);
    if (at < 0) throw new UnusableDataError(`${where}: row ${line}: a quoted cell that does not end`);
    if (text[at + 1] !== '"') return at;
  }
}

function breaks(text: string, from: number, to: number): number {
  return text.slice(from, to).match(/\r\n|\r|\n/g)?.length ?? 0;
}
