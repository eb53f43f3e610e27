/**
 * Builds the page that a signaling server serves at /join, into the folder given, ../../signaling/join by default.
 *
 * Files are compressed here, so that the server only hands out bytes; files.json lists them with their digests. ONNX
 * Runtime's WebAssembly is cut into parts of 256 KiB, which src/join/worker.ts puts together again.
 */

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const out = resolve(process.argv[2] ?? fileURLToPath(new URL("../../signaling/join", import.meta.url)));
const here = dirname(fileURLToPath(import.meta.url));
process.chdir(here);

const PART_BYTES = 256 << 10;
const RUNTIME = "node_modules/onnxruntime-web/dist";
const SCRIPT = "text/javascript; charset=utf-8";

const built = await build({
  absWorkingDir: here, // esbuild took note of the other one when it was imported
  entryPoints: { join: "src/join/main.ts", worker: "src/join/worker.ts" },
  outdir: out,
  write: false,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  conditions: ["onnxruntime-web-use-extern-wasm"],
  legalComments: "eof",
});

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const files = [];

function put(path, file, type, encoding, data) {
  writeFileSync(resolve(out, file), data);
  files.push({ path, file, type, encoding, sha256: createHash("sha256").update(data).digest("hex") });
}
const compressed = (path, file, type, data) => put(path, `${file}.gz`, type, "gzip", gzipSync(data, { level: 9 }));

compressed("/join", "index.html", "text/html; charset=utf-8", readFileSync("src/join/index.html"));
compressed("/join/join.css", "join.css", "text/css; charset=utf-8", readFileSync("src/join/join.css"));
for (const { path, contents } of built.outputFiles) {
  const name = path.split(/[\\/]/).at(-1);
  compressed(`/join/${name}`, name, SCRIPT, contents);
}
const glue = "ort-wasm-simd-threaded.mjs";
compressed(`/join/${glue}`, glue, SCRIPT, readFileSync(`${RUNTIME}/${glue}`));
const runtime = gzipSync(readFileSync(`${RUNTIME}/ort-wasm-simd-threaded.wasm`), { level: 9 });
const parts = Math.ceil(runtime.length / PART_BYTES);
for (let part = 0; part < parts; part++) {
  const data = runtime.subarray(part * PART_BYTES, (part + 1) * PART_BYTES);
  put(`/join/runtime.${part}`, `runtime.${part}`, "application/octet-stream", "identity", data);
}
put("/join/runtime.json", "runtime.json", "application/json", "identity", JSON.stringify({ parts }));
writeFileSync(resolve(out, "files.json"), JSON.stringify({ files }));
