/** Which examples a hold-out takes: the same in every language (spec 05 §6). */

const U64 = 64n;
const U128 = 128n;
const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;

/**
 * 0 to `count` - 1 in an order that is a function of `count`; a hold-out is the end of it.
 *
 * PCG64 (O'Neill 2014) seeded as numpy seeds it: what `numpy.random.PCG64(count).random_raw(count)` sorts to.
 */
export function shuffledExamples(count: number): Uint32Array {
  const draws = new BigUint64Array(count);
  const [high, low, sequenceHigh, sequenceLow] = seedWords(count);
  const increment = BigInt.asUintN(128, (join(sequenceHigh, sequenceLow) << 1n) | 1n);
  let state = next(increment + join(high, low), increment);
  for (let i = 0; i < count; i++) {
    state = next(state, increment);
    const folded = BigInt.asUintN(64, (state >> U64) ^ state);
    const turn = state >> (U128 - 6n);
    draws[i] = (folded >> turn) | (folded << (U64 - turn)); // the array keeps the low 64 bits
  }
  const at = (i: number): bigint => draws[i] as bigint;
  return Uint32Array.from(draws.keys()).sort((a, b) => (at(a) < at(b) ? -1 : at(a) > at(b) ? 1 : a - b));
}

function next(state: bigint, increment: bigint): bigint {
  return BigInt.asUintN(128, state * MULTIPLIER + increment);
}

function join(high: bigint, low: bigint): bigint {
  return (high << U64) | low;
}

/** Four 64-bit words from one 32-bit number: numpy's `SeedSequence`. */
function seedWords(entropy: number): [bigint, bigint, bigint, bigint] {
  const mix = mixing(0x43b0d7e5, 0x931e8875);
  const pool = Uint32Array.of(mix(entropy), mix(0), mix(0), mix(0));
  const at = (i: number): number => pool[i] as number;
  for (let source = 0; source < 4; source++) {
    for (let target = 0; target < 4; target++) {
      if (source === target) continue;
      pool[target] = fold(Math.imul(0xca01f9dd, at(target)) - Math.imul(0x4973f715, mix(at(source))));
    }
  }
  const draw = mixing(0x8b51f9dd, 0x58f38ded);
  const word = (half: number): bigint => BigInt(draw(at(half % 4)));
  const joined = (k: number): bigint => word(2 * k) | (word(2 * k + 1) << 32n);
  return [joined(0), joined(1), joined(2), joined(3)];
}

/** A hash of 32-bit numbers whose constant goes on from call to call. */
function mixing(constant: number, factor: number): (value: number) => number {
  let now = constant;
  return (value) => {
    const met = value ^ now;
    now = Math.imul(now, factor);
    return fold(Math.imul(met, now));
  };
}

function fold(value: number): number {
  return (value ^ (value >>> 16)) >>> 0;
}
