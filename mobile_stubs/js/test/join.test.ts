import { describe, expect, it } from "vitest";
import { roundBytes } from "../src/join/card.js";
import { bytes, fingerprint, kind } from "../src/join/format.js";
import { pictureSide, shrink } from "../src/join/pictures.js";

const field = (dtype: "float32" | "int64", shape: number[]) => ({ name: "x", dtype, shape, below: null });

describe("inputs that are pictures", () => {
  it("are square and grey, as a row, a plane or one channel", () => {
    for (const [shape, side] of [[[64], 8], [[784], 28], [[8, 8], 8], [[1, 28, 28], 28]] as const) {
      expect(pictureSide(field("float32", [...shape]), shape)).toBe(side);
    }
    for (const shape of [[], [10], [63], [3, 28, 28], [8, 9], [2, 2], [512, 512]]) {
      expect(pictureSide(field("float32", shape), shape)).toBeNull();
    }
    expect(pictureSide(field("int64", [64]), [64])).toBeNull();
  });
});

describe("a drawing", () => {
  /** A filled rectangle of ink on a sheet of 100 by 100. */
  const sheet = (left: number, top: number, right: number, bottom: number) =>
    Float32Array.from({ length: 10_000 }, (_, i) => Number(i % 100 >= left && i % 100 < right && i >= 100 * top && i < 100 * bottom));
  const columns = (picture: Float32Array, side: number) =>
    Array.from({ length: side }, (_, x) => Array.from({ length: side }, (_, y) => picture[y * side + x] as number).reduce((a, b) => a + b, 0));

  it("fills an 8 by 8 picture wherever and however large it was drawn", () => {
    for (const [left, top, right, bottom] of [[10, 10, 18, 42], [60, 50, 70, 90]] as const) {
      const picture = shrink(sheet(left, top, right, bottom), 100, 8);
      expect(columns(picture, 8).map((sum) => Math.round(sum))).toEqual([0, 0, 0, 8, 8, 0, 0, 0]);
    }
  });

  it("leaves the usual border in a 28 by 28 picture", () => {
    const picture = shrink(sheet(20, 20, 60, 60), 100, 28);
    const sums = columns(picture, 28);
    expect(sums.map((sum) => sum > 10)).toEqual(Array.from({ length: 28 }, (_, x) => x >= 4 && x < 24));
    expect(Math.max(...picture)).toBe(1);
  });

  it("that is empty is all zeros", () => {
    expect(shrink(new Float32Array(10_000), 100, 8)).toEqual(new Float32Array(64));
  });
});

describe("what a round sends", () => {
  it("is each chunk but one's own to its owner, and one's own chunk's sum to the others", () => {
    // 10 peers, 1000 numbers in all with a tail of 2 * (1 + 2), 20 bits: 9 chunks of 100 numbers out, 9 times 100 back
    const manifest = { parameter_count: 1094, local_count: 110, buffer_count: 10, metrics: [{}, {}] };
    const terms = { cohort_size: 10, ring_bits: 20, evaluate: true, replicas: 1 };
    expect(roundBytes({ manifest, terms } as unknown as Parameters<typeof roundBytes>[0])).toBe((2 * 9 * 100 * 20) / 8);
  });
});

describe("what a person reads", () => {
  it("has units and groups", () => {
    expect([0, 999, 1000, 1_234_567, 9_060].map(bytes)).toEqual(["0 bytes", "999 bytes", "1 kB", "1.23 MB", "9.06 kB"]);
    expect(fingerprint("0123456789abcdef".repeat(4))).toBe("0123 4567 89ab cdef 0123 4567 89ab cdef");
    expect(kind(field("float32", [-1, 8]))).toBe("float32[any, 8]");
    expect(kind(field("int64", []))).toBe("int64, one number");
  });
});
