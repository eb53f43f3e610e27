/** Picture files through the package's loader in a page: {files, options} as JSON on stdin, the fields on stdout. */

import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { openBrowser, serveBundle } from "./pages.mjs";

const { buildSync } = createRequire(new URL("../../mobile_stubs/js/package.json", import.meta.url))("esbuild");
const loaders = fileURLToPath(new URL("../../mobile_stubs/js/dist/datasets/index.js", import.meta.url));
const { outputFiles } = buildSync({ entryPoints: [loaders], bundle: true, write: false, format: "iife", globalName: "datasets" });

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const given = JSON.parse(Buffer.concat(chunks).toString());
const server = await serveBundle();
const browser = await openBrowser();
try {
  const page = await browser.newPage();
  await page.goto(server.url);
  await page.addScriptTag({ content: outputFiles[0].text });
  const found = await page.evaluate(async ({ files, options }) => {
    const picked = files.map(([name, hex]) => new File([Uint8Array.from(hex.match(/../g), (byte) => parseInt(byte, 16))], name));
    try {
      const { fields } = await window.datasets.fromImages(picked, options);
      return Object.fromEntries(Object.entries(fields).map(([name, { dtype, shape, data }]) => [name, { dtype, shape, data: [...data].map(Number) }]));
    } catch (error) {
      return { refused: error.message };
    }
  }, given);
  process.stdout.write(JSON.stringify(found));
} finally {
  await browser.close();
  server.close();
}
