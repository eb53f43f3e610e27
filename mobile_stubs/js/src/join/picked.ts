/** What a person picked: one table, one archive of arrays, or pictures. */

import { csvHeader, type PictureFile } from "../datasets/index.js";
import { UnusableDataError } from "../node/errors.js";

/** Picked files of one kind. */
export type Picked =
  | { readonly kind: "csv"; readonly file: File; readonly header: readonly string[] }
  | { readonly kind: "npz"; readonly file: File }
  | { readonly kind: "images"; readonly files: readonly PictureFile[] };

/**
 * Tell what files are.
 *
 * @throws UnusableDataError none, several tables, or files of a kind that is not read.
 */
export async function recognise(files: readonly File[]): Promise<Picked> {
  const [first] = files;
  if (first === undefined) throw new UnusableDataError("no file was picked; expected a .csv file, an .npz file or pictures");
  const ending = (file: File) => file.name.toLowerCase().split(".").at(-1) ?? "";
  if (files.length === 1 && ending(first) === "csv") return { kind: "csv", file: first, header: await csvHeader(first) };
  if (files.length === 1 && ending(first) === "npz") return { kind: "npz", file: first };
  const pictures = files.filter((file) => file.type.startsWith("image/"));
  if (pictures.length > 0 && !files.some((file) => ["csv", "npz"].includes(ending(file)))) return { kind: "images", files: pictures };
  const told = files.length === 1 ? first.name.slice(0, 80) : `${files.length} files`;
  throw new UnusableDataError(`${told}: expected one .csv file, one .npz file, or pictures alone`);
}
