/** Numbers, sizes and ids as people read them. */

const plain = new Intl.NumberFormat("en");
const precise = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const UNITS = ["bytes", "kB", "MB", "GB", "TB"] as const;

/** A whole number with its thousands apart. */
export function count(value: number): string {
  return plain.format(value);
}

/** A measured number, four digits of it. */
export function measure(value: number): string {
  return precise.format(value);
}

/** A part of one as per cent. */
export function percent(part: number): string {
  return `${(100 * part).toFixed(1)} %`;
}

/** Bytes in units of 1000. */
export function bytes(value: number): string {
  let unit = 0;
  let rest = value;
  while (rest >= 1000 && unit < UNITS.length - 1) {
    rest /= 1000;
    unit++;
  }
  return `${unit === 0 ? plain.format(rest) : precise.format(Number(rest.toPrecision(3)))} ${UNITS[unit]}`;
}

/** The first 32 digits of an id in groups of four: enough to compare by eye or over the phone. */
export function fingerprint(id: string): string {
  return (id.slice(0, 32).match(/.{4}/g) ?? []).join(" ");
}

/** A field's dtype and shape: float32[64]. */
export function kind(field: { readonly dtype: string; readonly shape: readonly number[] }): string {
  return field.shape.length === 0 ? `${field.dtype}, one number` : `${field.dtype}[${field.shape.map((size) => (size < 0 ? "any" : size)).join(", ")}]`;
}
