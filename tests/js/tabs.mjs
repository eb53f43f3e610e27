/**
 * Tabs of one Chromium as nodes: options as JSON in argv, one line of JSON per event on stdout, commands on stdin.
 *
 * A tab with `hang: {round, stage}` computes without end once it is there, so that it can be closed in mid-stage; one
 * with `page` lacks or pretends what that entry of lacking.mjs says; one with `beside` shares the storage of that tab.
 */

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { PAGES } from "./lacking.mjs";
import { openBrowser, serveBundle } from "./pages.mjs";

const options = JSON.parse(process.argv[2]);
const say = (tab, name, event) => process.stdout.write(`${JSON.stringify({ ...event, tab, name })}\n`);

/** Runs in the page; gives the peer's id, or why there is no node. */
async function begin({ url, author, raw, hang, device }) {
  const { DatabaseStorage, Node } = await import("/peerplan.js");
  const image = { dtype: "float32", shape: [64], data: Float32Array.from(raw.image) };
  const label = { dtype: "int64", shape: [], data: BigInt64Array.from(raw.label, BigInt), below: 10 };
  let node;
  try {
    const storage = await DatabaseStorage.open();
    node = await Node.connect(url, {
      identity: await storage.identity(),
      storage,
      policy: { authors: [author], minCohort: 3, minSurvivors: 3 },
      device: device ?? {},
      datasets: [{ name: "digits", fields: { image, label } }],
    });
  } catch ({ name, code, message }) {
    return { error: name, code, message };
  }
  for (const name of ["joined", "waiting", "round", "result", "ended", "error"]) {
    node.on(name, (event) => window.say(name, event));
  }
  node.on("progress", ({ run, round, stage }) => {
    if (round !== hang?.round || stage !== hang.stage) return;
    window.say("hanging", { run, round, stage });
    for (;;);
  });
  window.node = node;
  return { peer: node.peerId };
}

const server = await serveBundle();
const browser = await openBrowser();
const pages = {};
const debuggers = {};
for (const [tab, { data, page: lacking, beside, ...given }] of Object.entries(options.tabs)) {
  const context = beside === undefined ? await browser.newContext() : pages[beside].context();
  const page = await context.newPage();
  pages[tab] = page;
  if (lacking !== undefined) await page.addInitScript(PAGES[lacking]);
  page.on("pageerror", (error) => say(tab, "pageerror", { message: String(error) }));
  await page.exposeFunction("say", (name, event) => say(tab, name, event));
  await page.goto(server.url);
  const raw = JSON.parse(readFileSync(data, "utf8"));
  const begun = await page.evaluate(begin, { url: options.url, author: options.author, raw, ...given });
  say(tab, begun.peer === undefined ? "refused" : "connected", begun);
}
say("", "registered", {});

for await (const line of createInterface({ input: process.stdin })) {
  const { command, tab, run, level } = JSON.parse(line);
  if (command === "stop") break;
  if (command === "close") {
    await pages[tab].context().close();
    say(tab, "closed", {});
  }
  if (command === "battery") await pages[tab].evaluate((to) => window.battery.set(to), level);
  if (command === "sleep") {
    // the debugger stops the page's thread and timers in mid-script, while the network goes on, as on a closed laptop
    debuggers[tab] ??= await pages[tab].context().newCDPSession(pages[tab]);
    const asleep = new Promise((resolve) => debuggers[tab].once("Debugger.paused", resolve));
    await debuggers[tab].send("Debugger.enable");
    await debuggers[tab].send("Debugger.pause");
    await asleep;
    say(tab, "asleep", {});
  }
  if (command === "wake") await debuggers[tab].send("Debugger.resume");
  if (command === "model") {
    const held = await pages[tab].evaluate((id) => {
      const { round, modelDigest, model } = window.node.holds(id);
      return { round, digest: modelDigest, model: [...new Uint8Array(model.buffer)] };
    }, run);
    say(tab, "model", { round: held.round, digest: held.digest, bytes: Buffer.from(held.model).toString("hex") });
  }
}
await browser.close();
server.close();
