/**
 * Tabs of one Chromium as nodes: options as JSON in argv, one line of JSON per event on stdout, commands on stdin.
 *
 * A tab with `hang: {round, stage}` computes without end once it is there, so that it can be closed in mid-stage.
 */

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { openBrowser, serveBundle } from "./pages.mjs";

const options = JSON.parse(process.argv[2]);
const say = (tab, name, event) => process.stdout.write(`${JSON.stringify({ ...event, tab, name })}\n`);

/** Runs in the page. */
async function begin({ url, author, raw, hang }) {
  const { DatabaseStorage, Node } = await import("/peerplan.js");
  const storage = await DatabaseStorage.open();
  const image = { dtype: "float32", shape: [64], data: Float32Array.from(raw.image) };
  const label = { dtype: "int64", shape: [], data: BigInt64Array.from(raw.label, BigInt), below: 10 };
  const node = await Node.connect(url, {
    identity: await storage.identity(),
    storage,
    policy: { authors: [author], minCohort: 3, minSurvivors: 3 },
    datasets: [{ name: "digits", fields: { image, label } }],
  });
  for (const name of ["joined", "round", "result", "ended", "error"]) node.on(name, (event) => window.say(name, event));
  node.on("progress", ({ run, round, stage }) => {
    if (round !== hang?.round || stage !== hang.stage) return;
    window.say("hanging", { run, round, stage });
    for (;;);
  });
  window.node = node;
  return node.peerId;
}

const server = await serveBundle();
const browser = await openBrowser();
const pages = {};
for (const [tab, { data, hang }] of Object.entries(options.tabs)) {
  const context = await browser.newContext();
  const page = await context.newPage();
  pages[tab] = page;
  page.on("pageerror", (error) => say(tab, "pageerror", { message: String(error) }));
  await page.exposeFunction("say", (name, event) => say(tab, name, event));
  await page.goto(server.url);
  const raw = JSON.parse(readFileSync(data, "utf8"));
  const peer = await page.evaluate(begin, { url: options.url, author: options.author, raw, hang });
  say(tab, "connected", { peer });
}
say("", "registered", {});

for await (const line of createInterface({ input: process.stdin })) {
  const { command, tab, run } = JSON.parse(line);
  if (command === "stop") break;
  if (command === "close") {
    await pages[tab].context().close();
    say(tab, "closed", {});
  }
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
