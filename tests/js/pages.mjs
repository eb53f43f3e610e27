/** Headless Chromium and a server for the package's bundle, for tests. */

import { spawn } from "node:child_process";
import { createReadStream, mkdtempSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
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

const CHROMIUM = "/usr/bin/chromium";
/** Ends what it was told to start, and throws its folder away, when the process that asked for it is gone. */
const WHILE_ASKED = 'folder=$1; shift; "$@" --user-data-dir="$folder" & read -r _; kill $!; wait $!; rm -rf "$folder"';

/** A browser whose profile is thrown away with it; `more` flags go before those of all tests. */
export function openBrowser(more = []) {
  return chromium.launch({ executablePath: CHROMIUM, headless: true, args: [...more, ...FLAGS] });
}

/**
 * A browser with one window, of which one tab is seen and the others are hidden; gives that window. Pages of Playwright's
 * own browsers are told that they are seen, always.
 */
export async function openWindow() {
  const folder = mkdtempSync(join(tmpdir(), "peerplan-chromium-"));
  const command = [folder, CHROMIUM, "--headless=new", "--remote-debugging-port=0", ...FLAGS, "about:blank"];
  const child = spawn("sh", ["-c", WHILE_ASKED, "sh", ...command], { stdio: ["pipe", "ignore", "pipe"] });
  const address = await new Promise((resolve, reject) => {
    let told = "";
    child.stderr.on("data", (data) => {
      told += data;
      const found = /listening on (ws:\S+)/.exec(told);
      if (found !== null) resolve(found[1]);
    });
    child.on("exit", () => reject(new Error(`chromium did not start: ${told}`)));
  });
  const browser = await chromium.connectOverCDP(address, { noDefaults: true });
  const [context] = browser.contexts();
  const close = async () => {
    await browser.close();
    child.stdin.end();
  };
  return { newContext: () => context, close };
}
