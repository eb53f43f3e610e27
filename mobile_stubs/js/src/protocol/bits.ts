/** Sets of peer or chunk indexes as 64-bit masks (spec 01 §2.4): bit i stands for index i. */

/** A set of indexes below 64. */
export type Bits = bigint;

/** The empty set. */
export const NONE: Bits = 0n;

/** The set of one index. */
export function bit(index: number): Bits {
  return 1n << BigInt(index);
}

/** The set of some indexes. */
export function bitsOf(indexes: Iterable<number>): Bits {
  let out = NONE;
  for (const index of indexes) out |= bit(index);
  return out;
}

/** The indexes of a set, ascending. */
export function indexesOf(bits: Bits): number[] {
  const out = [];
  for (let index = 0; bits >> BigInt(index) > 0n; index++) if (has(bits, index)) out.push(index);
  return out;
}

/** Whether an index is in a set. */
export function has(bits: Bits, index: number): boolean {
  return ((bits >> BigInt(index)) & 1n) === 1n;
}

/** How many indexes a set has. */
export function count(bits: Bits): number {
  let rest = bits;
  let out = 0;
  for (; rest > 0n; rest &= rest - 1n) out++;
  return out;
}

/** Whether every index of `inner` is in `outer`. */
export function isWithin(inner: Bits, outer: Bits): boolean {
  return (inner & ~outer) === NONE;
}
