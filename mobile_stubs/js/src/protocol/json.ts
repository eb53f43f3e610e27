/**
 * Strict JSON (spec 01 §1): one value of UTF-8, nothing after it, names that do not repeat, and whole numbers told
 * apart from numbers with a fraction, which `JSON.parse` cannot do.
 */

import { type Bytes, utf8 } from "./bytes.js";
import { EncodingError, LimitExceededError } from "./errors.js";

/** A number that was written with a fraction or an exponent: `1.0` is not the integer 1. */
export class JsonFraction {
  constructor(readonly value: number) {}
}

/** A parsed value. Objects have no prototype, so that no name in a document has a meaning. */
export type Json = null | boolean | number | string | JsonFraction | readonly Json[] | JsonObject;
/** Fields by name. */
export interface JsonObject {
  readonly [name: string]: Json;
}

const MAX_DEPTH = 64;
const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const UNICODE = /[0-9a-fA-F]{4}/y;
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

/**
 * Parse one JSON document; `what` names it in errors.
 *
 * @throws LimitExceededError more than `maxBytes` bytes.
 * @throws EncodingError the bytes are no such JSON.
 */
export function parseJson(data: Uint8Array | string, what: string, maxBytes: number): Json {
  if (data.length > maxBytes) {
    throw new LimitExceededError(`${what}: ${data.length} bytes, at most ${maxBytes} are accepted`);
  }
  const text = typeof data === "string" ? data : decodeUtf8(data, what);
  if (typeof data === "string" && data.length * 3 > maxBytes && utf8(data).length > maxBytes) {
    throw new LimitExceededError(`${what}: more than ${maxBytes} bytes, at most that many are accepted`);
  }
  return new Parser(text, what).document();
}

/** UTF-8 JSON of a plain value. */
export function encodeJson(value: unknown): Bytes {
  return utf8(JSON.stringify(value));
}

function decodeUtf8(data: Uint8Array, what: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  } catch {
    throw new EncodingError(`${what}: the bytes are no UTF-8`);
  }
}

class Parser {
  private at = 0;

  constructor(
    private readonly text: string,
    private readonly what: string,
  ) {}

  document(): Json {
    const value = this.value(0);
    this.space();
    if (this.at !== this.text.length) this.fail("something follows the value");
    return value;
  }

  private value(depth: number): Json {
    if (depth > MAX_DEPTH) this.fail(`nested deeper than ${MAX_DEPTH}`);
    this.space();
    switch (this.text[this.at]) {
      case "{":
        return this.object(depth);
      case "[":
        return this.array(depth);
      case '"':
        return this.string();
      case "t":
        return this.word("true", true);
      case "f":
        return this.word("false", false);
      case "n":
        return this.word("null", null);
      default:
        return this.number();
    }
  }

  private object(depth: number): JsonObject {
    const out: Record<string, Json> = Object.create(null);
    this.at++;
    this.space();
    if (this.skip("}")) return out;
    for (;;) {
      this.space();
      if (this.text[this.at] !== '"') this.fail("expected a name");
      const name = this.string();
      if (name in out) this.fail(`the name ${JSON.stringify(name.slice(0, 80))} repeats`);
      this.space();
      if (!this.skip(":")) this.fail("expected a colon");
      out[name] = this.value(depth + 1);
      this.space();
      if (this.skip("}")) return out;
      if (!this.skip(",")) this.fail("expected a comma or the end of the object");
    }
  }

  private array(depth: number): Json[] {
    const out: Json[] = [];
    this.at++;
    this.space();
    if (this.skip("]")) return out;
    for (;;) {
      out.push(this.value(depth + 1));
      this.space();
      if (this.skip("]")) return out;
      if (!this.skip(",")) this.fail("expected a comma or the end of the array");
    }
  }

  private string(): string {
    this.at++;
    let out = "";
    for (;;) {
      PLAIN.lastIndex = this.at;
      out += PLAIN.exec(this.text)?.[0] ?? "";
      this.at = PLAIN.lastIndex;
      if (this.skip('"')) break;
      if (!this.skip("\\")) this.fail("a string that does not end, or holds a control character");
      out += this.escape();
    }
    if (!isWellFormed(out)) this.fail("a string holds half of a surrogate pair");
    return out;
  }

  private escape(): string {
    const letter = this.text[this.at++] ?? "";
    if (letter === "u") {
      UNICODE.lastIndex = this.at;
      const digits = UNICODE.exec(this.text)?.[0];
      if (digits === undefined) this.fail("an escape without four hexadecimal digits");
      this.at += 4;
      return String.fromCharCode(Number.parseInt(digits, 16));
    }
    const meant = Object.hasOwn(ESCAPES, letter) ? ESCAPES[letter] : undefined;
    if (meant === undefined) this.fail("an escape that does not exist");
    return meant;
  }

  private number(): number | JsonFraction {
    NUMBER.lastIndex = this.at;
    const match = NUMBER.exec(this.text);
    if (match === null) this.fail("expected a value");
    this.at = NUMBER.lastIndex;
    const value = Number(match[0]);
    if (!Number.isFinite(value)) this.fail("a number outside binary64");
    if (match[1] !== undefined || match[2] !== undefined) return new JsonFraction(value);
    if (!Number.isSafeInteger(value)) this.fail("an integer beyond 2^53 - 1");
    return value;
  }

  private word<T>(word: string, value: T): T {
    if (!this.text.startsWith(word, this.at)) this.fail("expected a value");
    this.at += word.length;
    return value;
  }

  private space(): void {
    SPACE.lastIndex = this.at;
    SPACE.exec(this.text);
    this.at = SPACE.lastIndex;
  }

  private skip(mark: string): boolean {
    if (this.text[this.at] !== mark) return false;
    this.at++;
    return true;
  }

  private fail(reason: string): never {
    throw new EncodingError(`${this.what}: no strict JSON: ${reason} at character ${this.at}`);
  }
}

function isWellFormed(text: string): boolean {
  try {
    encodeURIComponent(text); // throws on half a surrogate pair, in every engine
    return true;
  } catch {
    return false;
  }
}
