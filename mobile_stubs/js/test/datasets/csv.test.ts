import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { csvHeader, fromCsv } from "../../src/datasets/index.js";
import { records } from "../../src/datasets/records.js";
import { UnusableDataError } from "../../src/node/errors.js";

const name = "patients";
const data = async (text: string, options = {}) => (await fromCsv(text, { name, ...options })).fields;

describe("comma-separated tables", () => {
  it("gives a scalar field per column, whole numbers as int64 and others as float32", async () => {
    expect(await data("age,dose\n31,1\n40,2.5\n")).toEqual({
      age: { dtype: "int64", shape: [], data: BigInt64Array.of(31n, 40n) },
      dose: { dtype: "float32", shape: [], data: Float32Array.of(1, 2.5) },
    });
  });

  it("parts targets from the columns that make up an example", async () => {
    expect(await data("a,b,label,id\n1,2,0,x\n3,4,1,y\n", { targets: "label", inputs: "image", ignore: ["id"] })).toEqual({
      image: { dtype: "float32", shape: [2], data: Float32Array.of(1, 2, 3, 4) },
      label: { dtype: "int64", shape: [], data: BigInt64Array.of(0n, 1n) },
    });
  });

  it("groups columns by pattern, in the header's order and with a shape", async () => {
    const columns = { image: { columns: ["pixel_*"], dtype: "uint8", shape: [2, 2] } } as const;
    const fields = await data("pixel_1,label,pixel_0,pixel_3,pixel_2\n1,9,0,3,2\n", { columns });
    expect(fields["image"]).toEqual({ dtype: "uint8", shape: [2, 2], data: Uint8Array.of(1, 0, 3, 2) });
    expect(fields["label"]?.data).toEqual(BigInt64Array.of(9n));
  });

  it("reads quotes, line ends of three kinds, a byte order mark and blank lines", async () => {
    const text = '\uFEFF"a",b,"the ""note"""\r\n"1",2,\r\r3,"4","x,\n"\n\n';
    const fields = await data(text, { ignore: ["the *"] });
    expect(Object.values(fields).map((field) => field.data)).toEqual([BigInt64Array.of(1n, 3n), BigInt64Array.of(2n, 4n)]);
  });

  const refused: [string, string, object, RegExp][] = [
    ["nothing", "", {}, /row 1 is empty, expected a header/],
    ["a header alone", "a,b\n", {}, /no examples/],
    ["a short row", "a,b\n1,2\n3\n", {}, /row 3 has 1 columns, expected 2 as in the header/],
    ["a long row", "a\n1,2\n", {}, /row 2 has 2 columns, expected 1/],
    ["a word", "a,b\n1,2\n1,many\n", {}, /row 3, column "b": expected a finite number, got "many"/],
    ["an empty cell", "a,b\n1,\n", {}, /row 2, column "b": expected a finite number, got ""/],
    ["NaN", "a\nnan\n", {}, /row 2, column "a": expected a finite number, got "nan"/],
    ["infinity", "a\n1e999\n", {}, /expected a finite number, got "1e999"/],
    ["more than float32 holds", "a\n1e39\n", {}, /expected a finite number, got "1e39"/],
    ["digits of another script", "a\n١\n", {}, /expected a finite number/],
    ["a Python-only number", "a\n1_0\n", {}, /expected a finite number, got "1_0"/],
    ["a JavaScript-only number", "a\n0x10\n", {}, /expected a finite number, got "0x10"/],
    ["256 as uint8", "a\n256\n", { columns: { x: { columns: ["a"], dtype: "uint8" } } }, /expected uint8, got "256"/],
    ["a fraction as int32", "a\n1.0\n", { columns: { x: { columns: ["a"], dtype: "int32" } } }, /expected int32, got "1.0"/],
    ["maybe as bool", "a\nmaybe\n", { columns: { x: { columns: ["a"], dtype: "bool" } } }, /expected bool, got "maybe"/],
    ["a column twice", "a,a\n1,2\n", {}, /column "a" stands twice/],
    ["a target that is not there", "a,b\n1,2\n", { targets: "label" }, /no column matches "label"; the file has a, b/],
    ["a column in two groups", "a,b\n1,2\n", { columns: { x: { columns: ["a"] }, y: { columns: ["*"] } } }, /already taken by "x"/],
    ["a shape of another size", "a,b\n1,2\n", { columns: { x: { columns: ["*"], shape: [3] } } }, /\[3\] does not hold its 2 columns/],
    ["a field name with other signs", "my age\n1\n", {}, /field name "my age": expected letters/],
    ["a quote that does not end", 'a\n"1\n', {}, /row 2: a quoted cell that does not end/],
    ["something after a quote", 'a\n"1"2\n', {}, /row 2: expected a comma or the end of the row after a quoted cell/],
    ["more bytes than allowed", "a\n1\n2\n", { maxBytes: 10 }, /take more than 10 bytes \(reached in row 3\)/],
    ["a file that is too large", "a\n1\n2\n", { maxBytes: 5 }, /6 bytes, at most 5/],
    ["a cell without end", `a\n${"1".repeat(131_073)}\n`, {}, /a cell of 131073 characters/],
    ["all held out", "a\n1\n", { holdOut: 0.5 }, /leaves none to train on/],
  ];
  for (const [what, text, options, message] of refused) {
    it(`refuses ${what}`, async () => {
      const done = data(text, options);
      await expect(done).rejects.toBeInstanceOf(UnusableDataError);
      await expect(done).rejects.toThrow(message);
    });
  }

  it("refuses bytes that are no UTF-8 and names a file", async () => {
    const file = new File([Uint8Array.of(0x61, 0x0a, 0xff)], "broken.csv");
    await expect(fromCsv(file, { name })).rejects.toThrow("broken.csv: is no UTF-8 text");
    expect(await csvHeader(new File(["a,b\n"], "fine.csv"))).toEqual(["a", "b"]);
  });

  it("reads back what was written by RFC 4180, whatever the cells hold", () => {
    const cell = fc.string({ unit: fc.constantFrom("a", '"', ",", "\n", "\r", " ", "é") });
    const table = fc.array(fc.array(cell, { minLength: 2, maxLength: 4 }), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(table, fc.constantFrom("\n", "\r\n"), (rows, end) => {
        const text = rows.map((row) => row.map((value) => `"${value.replaceAll('"', '""')}"`).join(",") + end).join("");
        expect([...records(text, "text")].map((record) => record.cells)).toEqual(rows);
      }),
    );
  });

  it("reads back float32 and int64 numbers exactly", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.float({ noNaN: true, noDefaultInfinity: true }), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })), { minLength: 1 }),
        async (rows) => {
          const text = `x,n\n${rows.map(([x, n]) => `${x},${n}`).join("\n")}`;
          const fields = await data(text, { columns: { x: { columns: ["x"], shape: [] } } });
          expect(fields["x"]?.data).toEqual(Float32Array.from(rows, ([x]) => Number(String(x))));
          expect(fields["n"]?.data).toEqual(BigInt64Array.from(rows, ([, n]) => n));
        },
      ),
    );
  });
});

describe("a hold-out", () => {
  it("is the same for the same number of examples, keeps order, and holds every example once", async () => {
    const text = `a\n${Array.from({ length: 50 }, (_, i) => i).join("\n")}`;
    const found = await fromCsv(text, { name, holdOut: 0.2 });
    expect(found.heldOut).toBe(10);
    const values = [...(found.fields["a"]?.data as BigInt64Array)].map(Number);
    const [training, held] = [values.slice(0, 40), values.slice(40)];
    const sorted = (list: number[]) => [...list].sort((a, b) => a - b);
    expect(training).toEqual(sorted(training));
    expect(held).toEqual(sorted(held));
    expect(sorted(values)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect(Math.min(...held)).toBeLessThan(25); // not the last rows: a sorted file keeps all labels in both parts
    expect((await fromCsv(text, { name, holdOut: 0.2 })).fields).toEqual(found.fields);
    for (const fraction of [-0.1, 1, Number.NaN]) await expect(fromCsv(text, { name, holdOut: fraction })).rejects.toThrow("expected at least 0");
  });
});
