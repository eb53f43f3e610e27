/** Where a loader reads from: a file a person picked, its bytes, or text. */

/** A picked file, bytes, or (for tables) text. */
export type Source = Blob | ArrayBuffer | string;

/** What errors call it. */
export function sourceName(source: Source, kind: string): string {
  const named = (source as { readonly name?: unknown }).name;
  return typeof named === "string" && named !== "" ? named.slice(0, 128) : `the ${kind} data`;
}
