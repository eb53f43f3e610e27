/** Headless Chromium and a server for the package's bundle, for tests. */

import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { createRequire } from "node:module";

const BUNDLE = fileURLToPath(new URL("../../mobile_stubs/js/dist/bundle/", import.meta.url));
const require = createRequire(new URL("../../mobile_stubs/js/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const TYPES = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const PAGE = "<!doctype html><meta charset=utf-8><title>peerplan test</title>";
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  // Tabs hide their addresses behind names found by multicast, which a machine that tests may not have.
  "--disable-features=WebRtcHideLocalIpsWithMdns",
];

/** The bundle over HTTP on loopback; gives its address. */
export function serveBundle() {
  const server = createServer((request, response) => {
    const path = normalize(new URL(request.url, "http://x").pathname);
    if (path === "/") {
      response.writeHead(200, { "content-type": "text/html" }).end(PAGE);
      return;
    }
    const file = join(BUNDLE, path);
    try {
      const size = statSync(file).size;
      response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream", "content-length": size });
      createReadStream(file).pipe(response);
    } catch {
      response.writeHead(404).end();
    }
  });
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve({ url: `http://127.0.0.1:${server.address().port}/`, close: () => server.close() }));
  });
}

/** A browser whose profile is thrown away with it. */
export function openBrowser() {
  return chromium.launch({ executablePath: "/usr/bin/chromium", headless: true, args: FLAGS });
}
