import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fromNpz } from "../../src/datasets/index.js";
import { UnusableDataError } from "../../src/node/errors.js";
import { type Entry, npy, npyOf, zip } from "./archives.js";

const read = async (entries: readonly Entry[], options = {}) => fromNpz(await zip(entries), { name: "digits", ...options });
const image = npy("<f4", "(2, 3)", Float32Array.of(1, 2, 3, 4, 5, 6));
const label = npy("<i8", "(2,)", BigInt64Array.of(7n, -1n));

describe(".npz files", () => {
  for (const deflate of [false, true]) {
    it(`gives arrays by name, ${deflate ? "deflated" : "stored"}`, async () => {
      const found = await read([{ name: "image.npy", data: image, deflate }, { name: "label.npy", data: label, deflate }]);
      expect(found.fields).toEqual({
        image: { dtype: "float32", shape: [3], data: Float32Array.of(1, 2, 3, 4, 5, 6) },
        label: { dtype: "int64", shape: [], data: BigInt64Array.of(7n, -1n) },
      });
    });
  }

  it("reads every dtype of a dataset", async () => {
    const arrays: [string, string, ArrayBufferView<ArrayBuffer>][] = [
      ["<f4", "float32", Float32Array.of(0.5)],
      ["<f8", "float64", Float64Array.of(0.1)],
      ["<i4", "int32", Int32Array.of(-5)],
      ["<i8", "int64", BigInt64Array.of(2n ** 62n)],
      ["|u1", "uint8", Uint8Array.of(255)],
      ["|b1", "bool", Uint8Array.of(1)],
    ];
    for (const [descr, dtype, values] of arrays) {
      const { fields } = await read([{ name: "a.npy", data: npy(descr, "(1,)", values) }]);
      expect(fields["a"]).toEqual({ dtype, shape: [], data: values });
    }
  });

  it("turns big-endian and column-major arrays round", async () => {
    const swapped = new DataView(new ArrayBuffer(16));
    [1.5, -2, 3, 4].forEach((value, i) => swapped.setFloat32(4 * i, value, false));
    expect((await read([{ name: "a.npy", data: npy(">f4", "(4,)", swapped) }])).fields["a"]?.data).toEqual(Float32Array.of(1.5, -2, 3, 4));
    const columns = npy("<i4", "(2, 3)", Int32Array.of(1, 4, 2, 5, 3, 6), "True");
    expect((await read([{ name: "a.npy", data: columns }])).fields["a"]?.data).toEqual(Int32Array.of(1, 2, 3, 4, 5, 6));
  });

  const lies: [string, Entry[], RegExp][] = [
    ["an object array", [{ name: "a.npy", data: npy("|O", "(1,)", Uint8Array.of(1)) }], /is '\|O', expected one of float32/],
    ["a member that is no array", [{ name: "evil.pkl", data: image }], /holds "evil.pkl", expected .npy members alone/],
    ["a name twice", [{ name: "a.npy", data: image }, { name: "a.npy", data: image }], /two arrays have the same name/],
    ["a field name with other signs", [{ name: "__proto__.npy", data: image }], /field name "__proto__": expected letters/],
    ["NaN", [{ name: "a.npy", data: npy("<f4", "(1, 2)", Float32Array.of(0, Number.NaN)) }], /"a" is NaN or infinite at \[0, 1\]/],
    ["unequal lengths", [{ name: "a.npy", data: image }, { name: "b.npy", data: npy("|u1", "(3,)", Uint8Array.of(1, 2, 3)) }], /a has 2, b has 3/],
    ["no axis of examples", [{ name: "a.npy", data: npy("<f4", "()", Float32Array.of(1)) }], /0 axes, expected an axis of examples/],
    ["no examples", [{ name: "a.npy", data: npy("<f4", "(0,)", new Float32Array()) }], /no examples/],
    ["empty examples", [{ name: "a.npy", data: npy("<f4", "(2, 0)", new Float32Array()) }], /its examples are empty/],
    ["a shape that asks for more", [{ name: "a.npy", data: npy("<f4", "(9, 9)", Float32Array.of(1)) }], /needs 324 bytes for float32\[9,9\], its entry holds 4/],
    ["a shape beyond bounds", [{ name: "a.npy", data: npy("<f4", "(999999999999,)", Float32Array.of(1)) }], /an axis holds 268435456 at most/],
    ["a shape of other things", [{ name: "a.npy", data: npy("<f4", "(1 1,)", Float32Array.of(1)) }], /shape "\(1 1,\)" is none/],
    ["code in a header", [{ name: "a.npy", data: npyOf("{'descr': __import__('os')}\n", image) }], /a header that numpy does not write/],
    ["a bool of 2", [{ name: "a.npy", data: npy("|b1", "(1,)", Uint8Array.of(2)) }], /other bytes than 0 and 1/],
    ["a header that is cut off", [{ name: "a.npy", data: image.slice(0, 20) }], /a header of \d+ bytes, expected at most 20/],
    ["a bomb", [{ name: "a.npy", data: new Uint8Array(1 << 20), deflate: true, lie: { size: 100 } }], /unpacks to more bytes, its entry says 100/],
    ["an entry that holds less", [{ name: "a.npy", data: image, deflate: true, lie: { size: 1000 } }], /its entry says 1000/],
    ["an entry larger than allowed", [{ name: "a.npy", data: image, deflate: true, lie: { size: 2 ** 31 } }], /2147483648 bytes when unpacked, at most/],
    ["a damaged byte", [{ name: "a.npy", data: image, lie: { checksum: 1 } }], /its entry says 1; is the file damaged/],
    ["an encrypted entry", [{ name: "a.npy", data: image, lie: { flags: 1 } }], /is encrypted/],
    ["another packing", [{ name: "a.npy", data: image, lie: { method: 14 } }], /packed by method 14, expected stored \(0\) or deflated \(8\)/],
    ["garbage for deflate", [{ name: "a.npy", data: new Uint8Array(64).fill(255), lie: { method: 8 } }], /cannot be unpacked/],
    ["an offset outside", [{ name: "a.npy", data: image, lie: { local: 1 << 30 } }], /points outside its \d+ bytes/],
    ["an offset elsewhere", [{ name: "a.npy", data: image, lie: { local: 4 } }], /is not where the directory says/],
    ["data past the end", [{ name: "a.npy", data: image, lie: { packedSize: 1 << 30 } }], /points outside/],
    ["4 GiB", [{ name: "a.npy", data: image, lie: { size: 0xffffffff } }], /4 GiB or more/],
    ["nothing", [], /0 arrays, expected 1 to 64/],
  ];
  for (const [what, entries, message] of lies) {
    it(`refuses ${what}`, async () => {
      const done = read(entries);
      await expect(done).rejects.toBeInstanceOf(UnusableDataError);
      await expect(done).rejects.toThrow(message);
    });
  }

  it("refuses what is no archive and what is too large before reading it", async () => {
    await expect(fromNpz(new ArrayBuffer(10), { name: "a" })).rejects.toThrow("no zip directory at its end");
    await expect(fromNpz(new ArrayBuffer(100), { name: "a", maxBytes: 99 })).rejects.toThrow("100 bytes, at most 99");
    await expect(fromNpz(await zip([{ name: "a.npy", data: image }]), { name: "no name" })).rejects.toThrow('dataset name "no name"');
  });

  it("gives documented errors alone for damaged archives", async () => {
    const whole = new Uint8Array(await zip([{ name: "image.npy", data: image, deflate: true }, { name: "label.npy", data: label }]));
    const damage = fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(damage, fc.nat(whole.length), async (changes, length) => {
        const bytes = whole.slice();
        for (const [at, value] of changes) bytes[at] = value;
        const source = length % 3 === 0 ? bytes.slice(0, length) : bytes;
        await fromNpz(source.buffer, { name: "digits" }).catch((error: unknown) => {
          if (!(error instanceof UnusableDataError)) throw error;
        });
      }),
      { numRuns: 300 },
    );
  });
});
