/** Loads files with the package's loaders: JSON lines {path, options} in, {fields, heldOut} or {refused} out. */

import { readFileSync } from "node:fs";
import { basename, extname } from "node:path";
import { createInterface } from "node:readline";
import { fromCsv, fromNpz } from "../../mobile_stubs/js/dist/datasets/index.js";
import { UnusableDataError } from "../../mobile_stubs/js/dist/node/errors.js";

async function load({ path, options }) {
  const file = new File([readFileSync(path)], basename(path));
  try {
    const { fields, heldOut } = await (extname(path) === ".csv" ? fromCsv : fromNpz)(file, options);
    const told = Object.entries(fields).map(([name, { dtype, shape, data }]) => {
      return [name, { dtype, shape, data: Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("hex") }];
    });
    return { fields: Object.fromEntries(told), heldOut: heldOut ?? 0 };
  } catch (error) {
    if (!(error instanceof UnusableDataError)) throw error;
    return { refused: error.message };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await load(JSON.parse(line)))}\n`);
}
