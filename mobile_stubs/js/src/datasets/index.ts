/** `peerplan/datasets`: an owner's files as datasets. Nothing of them is sent anywhere. */

export { type ColumnGroup, csvHeader, type CsvOptions, fromCsv, MAX_CSV_BYTES } from "./csv.js";
export { type DType, MAX_DATASET_BYTES } from "./fields.js";
export { holdOut } from "./hold-out.js";
export { type DecodePicture, fromImages, type ImageOptions, labelOf, type PictureFile } from "./images.js";
export { fromNpz, type NpzOptions } from "./npz.js";
export type { Source } from "./source.js";
