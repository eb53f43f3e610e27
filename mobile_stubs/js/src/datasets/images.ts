/** Datasets from picture files: decoded, scaled to one size, labelled by folder or file name. */

import { UnusableDataError } from "../node/errors.js";
import type { Dataset, FieldData } from "../plans/data.js";
import { checkField, checkFields, checkName, MAX_DATASET_BYTES, shown } from "./fields.js";
import { holdOut } from "./hold-out.js";

/** Bytes of one picture file. */
const MAX_FILE_BYTES = 64 << 20;
const MAX_SIDE = 4096;
/** Brightness of red, green and blue (Rec. 601). */
const LUMA = [0.299, 0.587, 0.114] as const;

/** Red, green, blue and alpha bytes of a picture of the size that was asked for. */
export type DecodePicture = (file: Blob, width: number, height: number) => Promise<Uint8ClampedArray>;

/** How pictures become a dataset. */
export interface ImageOptions {
  /** Name of the dataset. */
  readonly name: string;
  /** Width and height in pixels that every picture is scaled to. */
  readonly size: readonly [width: number, height: number];
  /** 1 is brightness, 3 is red, green and blue. */
  readonly channels?: 1 | 3;
  /** What white becomes; black is 0. 1 by default. */
  readonly scale?: number;
  /** One example is [channels, height, width], or one vector of all of them. */
  readonly flat?: boolean;
  /** Where a picture's label stands: the folder around it, its file name up to the first _ or -, or nowhere. */
  readonly labels?: "folder" | "prefix" | "none";
  /** Names of the labels in the order the plan counts them. Without it labels must be whole numbers. */
  readonly classes?: readonly string[];
  /** Names of the two fields: image and label by default. */
  readonly fields?: readonly [image: string, label: string];
  /** The part kept for evaluation and never trained on: 0 (the default) up to, not including, 1. */
  readonly holdOut?: number;
  readonly maxBytes?: number;
  /** Another decoder than the browser's. */
  readonly decode?: DecodePicture;
  readonly signal?: AbortSignal;
}

/** A picked file; `webkitRelativePath` is there where a folder was picked. */
export type PictureFile = Blob & { readonly name: string; readonly webkitRelativePath?: string };

/**
 * A dataset of pictures; float32 pixels and, unless `labels` is "none", int64 labels.
 *
 * @throws UnusableDataError a file that is no picture, has no label, or too many bytes; names the file.
 */
export async function fromImages(files: Iterable<PictureFile>, options: ImageOptions): Promise<Dataset> {
  const { name, channels = 1, scale = 1, labels = "folder", maxBytes = MAX_DATASET_BYTES, decode = decodeInPage } = options;
  const [imageName, labelName] = options.fields ?? ["image", "label"];
  const [width, height] = options.size;
  const where = `dataset ${name}`;
  checkName(name, "dataset name");
  if (![width, height].every((side) => Number.isInteger(side) && side >= 1 && side <= MAX_SIDE)) {
    throw new UnusableDataError(`${where}: size ${width} by ${height}, expected 1 to ${MAX_SIDE} pixels a side`);
  }
  if (!(Number.isFinite(scale) && scale > 0)) throw new UnusableDataError(`${where}: white is ${scale}, expected a number above 0`);
  const all = [...files];
  const shape = options.flat === true ? [channels * width * height] : [channels, height, width];
  checkField(imageName, [all.length, ...shape], where);
  const pixels = channels * width * height;
  const bytes = 4 * all.length * pixels;
  if (bytes > maxBytes) throw new UnusableDataError(`${where}: ${all.length} pictures take ${bytes} bytes, at most ${maxBytes} are loaded`);
  const data = new Float32Array(all.length * pixels);
  for (const [at, file] of all.entries()) {
    options.signal?.throwIfAborted();
    if (file.size > MAX_FILE_BYTES) throw new UnusableDataError(`${file.name}: ${file.size} bytes, at most ${MAX_FILE_BYTES} are decoded`);
    const rgba = await decode(file, width, height);
    if (rgba.length !== 4 * width * height) {
      throw new UnusableDataError(`${file.name}: decoded to ${rgba.length} bytes, expected ${4 * width * height}`);
    }
    fill(data.subarray(at * pixels, (at + 1) * pixels), rgba, channels, scale / 255);
  }
  const fields: Record<string, FieldData> = { [imageName]: { dtype: "float32", shape, data } };
  if (labels !== "none") {
    checkField(labelName, [all.length], where);
    fields[labelName] = labelled(all, labels, options.classes, where);
  }
  checkFields(fields, where);
  return holdOut({ name, fields }, options.holdOut ?? 0, where);
}

/** The label that stands in a file's path; "" where there is none. */
export function labelOf(file: PictureFile, labels: "folder" | "prefix"): string {
  if (labels === "folder") return (file.webkitRelativePath ?? "").split("/").at(-2) ?? "";
  return /^(.+?)[_-]/.exec(file.name)?.[1] ?? "";
}

function labelled(
  files: readonly PictureFile[],
  labels: "folder" | "prefix",
  classes: readonly string[] | undefined,
  where: string,
): FieldData {
  const values = files.map((file) => {
    const label = labelOf(file, labels);
    const place = labels === "folder" ? "the folder around it" : "its name up to the first _ or -";
    if (label === "") throw new UnusableDataError(`${where}: ${file.name} has no label; expected it in ${place}`);
    const number = classes === undefined ? (/^\d{1,9}$/.test(label) ? Number(label) : -1) : classes.indexOf(label);
    if (number < 0) {
      const expected = classes === undefined ? "a whole number, or a list of classes" : `one of ${classes.slice(0, 16).join(", ")}`;
      throw new UnusableDataError(`${where}: ${file.name} is labelled ${shown(label)}, expected ${expected}`);
    }
    return BigInt(number);
  });
  const data = BigInt64Array.from(values);
  return classes === undefined ? { dtype: "int64", shape: [], data } : { dtype: "int64", shape: [], data, below: classes.length };
}

function fill(out: Float32Array, rgba: Uint8ClampedArray, channels: 1 | 3, factor: number): void {
  const count = rgba.length / 4;
  for (let i = 0; i < count; i++) {
    const [red, green, blue] = rgba.subarray(4 * i, 4 * i + 3) as unknown as [number, number, number];
    if (channels === 1) out[i] = factor * (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue);
    else {
      out[i] = factor * red;
      out[count + i] = factor * green;
      out[2 * count + i] = factor * blue;
    }
  }
}

/** Decoded and scaled by the browser; what is transparent is black. */
async function decodeInPage(file: Blob, width: number, height: number): Promise<Uint8ClampedArray> {
  const what = (file as { name?: string }).name ?? "a picture";
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new UnusableDataError(`${what}: is no picture that this browser can decode`);
  }
  try {
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    if (context === null) throw new UnusableDataError(`${what}: this browser gave no canvas to decode it in`);
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  } finally {
    bitmap.close();
  }
}
