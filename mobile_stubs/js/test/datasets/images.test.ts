import { describe, expect, it } from "vitest";
import { fromImages, type PictureFile } from "../../src/datasets/index.js";

/** A "picture" of four bytes, that every pixel gets. */
const picture = (name: string, rgba: number[], folder = "") =>
  Object.assign(new File([Uint8Array.from(rgba)], name), folder === "" ? {} : { webkitRelativePath: `${folder}/${name}` }) as PictureFile;

const decode = async (file: Blob, width: number, height: number) => {
  const pixel = new Uint8Array(await file.arrayBuffer());
  return Uint8ClampedArray.from({ length: 4 * width * height }, (_, i) => pixel[i % 4] as number);
};
const given = { name: "pictures", size: [2, 1], decode } as const;

describe("pictures", () => {
  it("are brightness between 0 and the scale, labelled by folder", async () => {
    const files = [picture("x.png", [255, 255, 255, 255], "all/7"), picture("y.png", [255, 0, 0, 255], "all/3")];
    const { fields } = await fromImages(files, { ...given, scale: 16 });
    expect(fields["image"]?.shape).toEqual([1, 1, 2]);
    const values = [...(fields["image"]?.data ?? [])].map(Number);
    [16, 16, 0.299 * 16, 0.299 * 16].forEach((value, i) => expect(values[i]).toBeCloseTo(value, 5));
    expect(fields["label"]).toEqual({ dtype: "int64", shape: [], data: BigInt64Array.of(7n, 3n) });
  });

  it("keep colours apart, by channel and then by row", async () => {
    const { fields } = await fromImages([picture("cat_1.png", [255, 51, 0, 255])], {
      ...given,
      channels: 3,
      labels: "prefix",
      classes: ["dog", "cat"],
      fields: ["x", "y"],
    });
    expect(fields["x"]?.shape).toEqual([3, 1, 2]);
    expect([...(fields["x"]?.data ?? [])].map((value) => Math.round(Number(value) * 10))).toEqual([10, 10, 2, 2, 0, 0]);
    expect(fields["y"]).toEqual({ dtype: "int64", shape: [], data: BigInt64Array.of(1n), below: 2 });
  });

  it("may be vectors without labels", async () => {
    const { fields } = await fromImages([picture("a.png", [0, 0, 0, 255])], { ...given, flat: true, labels: "none" });
    expect(Object.keys(fields)).toEqual(["image"]);
    expect(fields["image"]?.shape).toEqual([2]);
  });

  const white = [255, 255, 255, 255];
  const refused: [string, PictureFile[], object, RegExp][] = [
    ["no files", [], { labels: "none" }, /no examples/],
    ["a file in no folder", [picture("a.png", white)], {}, /a.png has no label; expected it in the folder/],
    ["a name without prefix", [picture("a.png", white)], { labels: "prefix" }, /up to the first _ or -/],
    ["a word without classes", [picture("cat_1.png", white)], { labels: "prefix" }, /labelled "cat", expected a whole number/],
    ["a class nobody named", [picture("cow_1.png", white)], { labels: "prefix", classes: ["cat"] }, /labelled "cow", expected one of cat/],
    ["a size without pixels", [picture("a.png", white)], { size: [0, 8] }, /size 0 by 8, expected 1 to 4096/],
    ["a scale of nothing", [picture("a.png", white)], { scale: 0 }, /white is 0/],
    ["more bytes than allowed", [picture("a.png", white)], { maxBytes: 7, labels: "none" }, /1 pictures take 8 bytes, at most 7/],
    ["a decoder's other size", [picture("a.png", white)], { labels: "none", decode: async () => new Uint8ClampedArray(4) }, /decoded to 4 bytes, expected 8/],
  ];
  for (const [what, files, options, message] of refused) {
    it(`refuses ${what}`, async () => {
      await expect(fromImages(files, { ...given, ...options })).rejects.toThrow(message);
    });
  }

  it("stop with their signal", async () => {
    const signal = AbortSignal.abort();
    await expect(fromImages([picture("a.png", white)], { ...given, labels: "none", signal })).rejects.toThrow(/abort/i);
  });
});
