/**
 * Builds dist/: modules and types by tsc, and dist/bundle/ by esbuild for pages without a bundler of their own:
 * peerplan.js (a node in a page), conformance.js (the peer under test), runtime-worker.js with ONNX Runtime's files.
 */

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { minify } from "terser";
import { internalNames } from "./internal-names.mjs";

process.chdir(dirname(fileURLToPath(import.meta.url)));
rmSync("dist", { recursive: true, force: true });
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.json"], { stdio: "inherit" });

await build({
  absWorkingDir: process.cwd(), // where this process was started from is no matter
  entryPoints: {
    peerplan: "src/browser/index.ts",
    conformance: "src/conformance/answer.ts",
    "runtime-worker": "src/browser/runtime-worker.ts",
  },
  outdir: "dist/bundle",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  conditions: ["onnxruntime-web-use-extern-wasm"],
  legalComments: "linked",
});

// esbuild minifies file by file; a second pass over the whole, with short names inside, makes what a page loads five percent smaller
const page = "dist/bundle/peerplan.js";
const { code } = await minify(readFileSync(page, "utf8"), {
  module: true,
  compress: { passes: 3, ecma: 2020, lhs_constants: false },
  mangle: { properties: { regex: new RegExp(`^(?:${internalNames().join("|")})$`), keep_quoted: true } },
});
writeFileSync(page, code);

const runtime = "node_modules/onnxruntime-web/dist";
mkdirSync("dist/bundle", { recursive: true });
for (const file of ["ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.mjs"]) {
  copyFileSync(join(runtime, file), join("dist/bundle", file));
}
