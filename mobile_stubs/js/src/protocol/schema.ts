/** What a JSON document must look like (spec 01 §1.2, §1.4): exact fields, no coercion, bounds on every size. */

import { type Bytes, fromBase64, isHex64, quote, toBase64 } from "./bytes.js";
import { EncodingError } from "./errors.js";
import { encodeJson, type Json, JsonFraction, type JsonObject, parseJson } from "./json.js";

/** Reads a value of one form and writes it back. `fallback` is what a field that may be left out then means. */
export interface Schema<T> {
  read(value: Json, where: string): T;
  write(value: T): unknown;
  readonly fallback?: { readonly value: T };
}

/** What a schema reads. */
export type Of<S> = S extends Schema<infer T> ? T : never;

type Fields = Readonly<Record<string, Schema<never>>>;
type FieldsOf<F> = { readonly [K in keyof F]: F[K] extends Schema<infer T> ? T : never };

const NAME = /^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/;

/** Parse a document of a schema; `what` names it in errors. */
export function decodeJson<T>(data: Uint8Array | string, schema: Schema<T>, what: string, maxBytes: number): T {
  return schema.read(parseJson(data, what, maxBytes), what);
}

/** The bytes of a document. */
export function encodeAs<T>(schema: Schema<T>, value: T): Bytes {
  return encodeJson(schema.write(value));
}

/** A whole number in [least, most]. */
export function integer(least: number, most: number): Schema<number> {
  return plain((value, where) => {
    if (typeof value !== "number" || value < least || value > most) {
      throw new EncodingError(`${where}: expected a whole number from ${least} to ${most}, got ${describe(value)}`);
    }
    return value;
  });
}

/** A number; `above` and `below` are excluded, `least` and `most` are not. */
export function number(
  options: { above?: number; below?: number; least?: number; most?: number } = {},
): Schema<number> {
  const { above = -Infinity, below = Infinity, least = -Infinity, most = Infinity } = options;
  const bounds = [
    ["above", above],
    ["at least", least],
    ["below", below],
    ["at most", most],
  ] as const;
  const range = bounds.filter(([, bound]) => Number.isFinite(bound)).map(([word, bound]) => `${word} ${bound}`);
  return plain((value, where) => {
    const found = value instanceof JsonFraction ? value.value : value;
    const isIn = typeof found === "number" && found > above && found >= least && found < below && found <= most;
    if (!isIn) throw new EncodingError(`${where}: expected a number ${range.join(", ")}, got ${describe(value)}`);
    return found;
  });
}

/** `true` or `false`. */
export const boolean: Schema<boolean> = plain((value, where) => {
  if (typeof value !== "boolean") throw new EncodingError(`${where}: expected true or false, got ${describe(value)}`);
  return value;
});

/** Text of at most `most` characters (code points). */
export function text(most: number, options: { least?: number; pattern?: RegExp } = {}): Schema<string> {
  return plain((value, where) => {
    const found = asText(value, where);
    // oxlint-disable-next-line typescript/no-misused-spread -- code points are what is counted (spec 01)
    const length = found.length <= most && (options.least ?? 0) <= 1 ? found.length : [...found].length;
    if (length > most || length < (options.least ?? 0)) {
      throw new EncodingError(`${where}: expected ${options.least ?? 0} to ${most} characters, got ${length}`);
    }
    if (options.pattern !== undefined && !options.pattern.test(found)) {
      throw new EncodingError(`${where}: expected text that fits ${options.pattern.source}, got ${quote(found)}`);
    }
    return found;
  });
}

/** 32 bytes as 64 lower-case hexadecimal digits. */
export const hex64: Schema<string> = plain((value, where) => {
  const found = asText(value, where);
  if (!isHex64(found)) throw new EncodingError(`${where}: expected 64 lower-case hexadecimal digits, got ${quote(found)}`);
  return found;
});

/** A name people choose. */
export const name: Schema<string> = text(128, { pattern: NAME });

/** Bytes in base64. */
export function bytes(least = 0, most = Number.MAX_SAFE_INTEGER): Schema<Bytes> {
  return {
    read(value, where) {
      const found = fromBase64(asText(value, where), where);
      if (found.length < least || found.length > most) {
        throw new EncodingError(`${where}: expected ${least} to ${most} bytes, got ${found.length}`);
      }
      return found;
    },
    write: toBase64,
  };
}

/** One of some values. */
export function oneOf<const T extends string | number>(...values: readonly T[]): Schema<T> {
  return plain((value, where) => {
    const found = values.find((candidate) => candidate === value);
    if (found === undefined) {
      throw new EncodingError(`${where}: expected one of ${values.join(", ")}, got ${describe(value)}`);
    }
    return found;
  });
}

/** A list. */
export function list<T>(of: Schema<T>, options: { least?: number; most?: number } = {}): Schema<readonly T[]> {
  const { least = 0, most = Number.MAX_SAFE_INTEGER } = options;
  return {
    read(value, where) {
      if (!Array.isArray(value)) throw new EncodingError(`${where}: expected a list, got ${describe(value)}`);
      if (value.length < least || value.length > most) {
        throw new EncodingError(`${where}: expected ${least} to ${most} items, got ${value.length}`);
      }
      return value.map((item: Json, i) => of.read(item, `${where}[${i}]`));
    },
    write: (value) => value.map((item) => of.write(item)),
  };
}

/** An object whose names come from a short list. */
export function mapOf<const K extends string, T>(keys: readonly K[], of: Schema<T>): Schema<Readonly<Partial<Record<K, T>>>> {
  return {
    read(value, where) {
      const out: Partial<Record<K, T>> = {};
      for (const [key, item] of Object.entries(asObject(value, where))) {
        const known = keys.find((candidate) => candidate === key);
        if (known === undefined) throw new EncodingError(`${where}: unknown name ${quote(key)}`);
        out[known] = of.read(item, `${where}.${key}`);
      }
      return out;
    },
    write: (value) => Object.fromEntries(Object.entries(value).map(([key, item]) => [key, of.write(item as T)])),
  };
}

/** A value, or null. */
export function nullable<T>(of: Schema<T>): Schema<T | null> {
  return {
    read: (value, where) => (value === null ? null : of.read(value, where)),
    write: (value) => (value === null ? null : of.write(value)),
  };
}

/** A field that may be left out, and what it then is. */
export function optional<T>(of: Schema<T>, value: T): Schema<T> {
  return { read: of.read, write: of.write, fallback: { value } };
}

/** An object with exactly these fields. */
export function record<F>(fields: F): Schema<FieldsOf<F>> {
  const known = Object.entries(fields as Fields);
  return {
    read(value, where) {
      const given = asObject(value, where);
      for (const key of Object.keys(given)) {
        if (!Object.hasOwn(fields as Fields, key)) throw new EncodingError(`${where}: unknown field ${quote(key)}`);
      }
      const out: Record<string, unknown> = {};
      for (const [key, schema] of known) {
        const item = given[key];
        if (item !== undefined) out[key] = schema.read(item, `${where}.${key}`);
        else if (schema.fallback !== undefined) out[key] = schema.fallback.value;
        else throw new EncodingError(`${where}: field ${key} is missing`);
      }
      return out as FieldsOf<F>;
    },
    write(value) {
      const out: Record<string, unknown> = {};
      for (const [key, schema] of known) {
        const item = (value as Record<string, never>)[key];
        if (item !== undefined) out[key] = schema.write(item);
      }
      return out;
    },
  };
}

/** Objects told apart by their field `type`; what is read keeps it. */
export function tagged<T extends { readonly type: string }>(kinds: Readonly<Record<string, Schema<unknown>>>): Schema<T> {
  return {
    read(value, where) {
      const { type, ...rest } = asObject(value, where);
      if (typeof type !== "string" || !Object.hasOwn(kinds, type)) {
        throw new EncodingError(`${where}: unknown type ${describe(type ?? null)}`);
      }
      const fields = kinds[type]?.read(rest, `${where} ${type}`) as object;
      return { type, ...fields } as unknown as T;
    },
    write(value) {
      const kind = kinds[value.type];
      if (kind === undefined) throw new EncodingError(`unknown type ${quote(value.type)}`);
      return { type: value.type, ...(kind.write(value) as object) };
    },
  };
}

function plain<T>(read: (value: Json, where: string) => T): Schema<T> {
  return { read, write: (value) => value };
}

function asText(value: Json, where: string): string {
  if (typeof value !== "string") throw new EncodingError(`${where}: expected text, got ${describe(value)}`);
  return value;
}

function asObject(value: Json, where: string): JsonObject {
  if (value === null || typeof value !== "object" || Array.isArray(value) || value instanceof JsonFraction) {
    throw new EncodingError(`${where}: expected an object, got ${describe(value)}`);
  }
  return value as JsonObject;
}

function describe(value: Json): string {
  if (value instanceof JsonFraction) return `the fraction ${value.value}`;
  if (Array.isArray(value)) return "a list";
  if (typeof value === "string") return quote(value);
  return value !== null && typeof value === "object" ? "an object" : String(value);
}
