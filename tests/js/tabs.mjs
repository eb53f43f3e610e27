/**
 * Tabs of one Chromium as nodes: options as JSON in argv, one line of JSON per event on stdout, commands on stdin.
 *
 * A tab with `hang: {round, stage}` computes without end once it is there, so that it can be closed in mid-stage; one
 * with `page` lacks or pretends what that entry of lacking.mjs says; one with `beside` shares the storage of that tab; one
 * with `metered` begins on a connection whose owner saves data; one with `own` tells what it holds, and stops at once
 * after the round `stops`, after which `reload` has it begin again as a page that was loaded anew. With `window` all tabs
 * are in one window, where `cover` puts another one before them and `uncover` one of them in front.
 */

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { PAGES } from "./lacking.mjs";
import { openBrowser, openWindow, serveBundle } from "./pages.mjs";

const options = JSON.parse(process.argv[2]);
const say = (tab, name, event) => process.stdout.write(`${JSON.stringify({ ...event, tab, name })}\n`);

/** Runs in the page; gives the peer's id, or why there is no node. */
async function begin({ url, author, raw, hang, device, own, stops }) {
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
  for (const name of ["joined", "ready", "waiting", "round", "group", "result", "fetched", "ended", "error"]) {
    node.on(name, (event) => window.say(name, event));
  }
  const hex = ({ buffer }) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const tellHeld = ({ run }) => {
    const { round, model, local } = node.holds(run);
    window.say("own", { run, round, bytes: hex(model), local: hex(local) });
  };
  if (own) for (const name of ["joined", "result"]) node.on(name, tellHeld);
  node.on("result", ({ round }) => {
    if (round === stops) node.stop();
  });
  node.on("progress", ({ run, round, stage }) => {
    if (round !== hang?.round || stage !== hang.stage) return;
    window.say("hanging", { run, round, stage });
    for (;;);
  });
  window.node = node;
  return { peer: node.peerId };
}

const server = await serveBundle();
const browser = await (options.window ? openWindow() : openBrowser());
const pages = {};
const debuggers = {};

/** Load the page and have it be a node. */
async function enter(tab, { data, ...given }) {
  await pages[tab].goto(server.url);
  const raw = JSON.parse(readFileSync(data, "utf8"));
  const begun = await pages[tab].evaluate(begin, { url: options.url, author: options.author, raw, ...given });
  say(tab, begun.peer === undefined ? "refused" : "connected", begun);
}

/** Chromium's own data saver; it says so to the page together with the next change of the network. */
async function setMetered(page, isMetered) {
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  await session.send("Emulation.setDataSaverOverride", { dataSaverEnabled: isMetered });
  const told = page.evaluate(() => new Promise((resolve) => navigator.connection.addEventListener("change", () => resolve(), { once: true })));
  const free = { offline: false, downloadThroughput: -1, uploadThroughput: -1, latency: 0 };
  await session.send("Network.emulateNetworkConditions", { ...free, latency: 900 });
  await session.send("Network.emulateNetworkConditions", free);
  await told;
}

for (const [tab, { page: lacking, beside, metered, ...given }] of Object.entries(options.tabs)) {
  const context = beside === undefined ? await browser.newContext() : pages[beside].context();
  const page = await context.newPage();
  pages[tab] = page;
  if (lacking !== undefined) await page.addInitScript(PAGES[lacking]);
  page.on("pageerror", (error) => say(tab, "pageerror", { message: String(error) }));
  await page.exposeFunction("say", (name, event) => say(tab, name, event));
  if (metered) await setMetered(page, true);
  await enter(tab, given);
}
say("", "registered", {});

for await (const line of createInterface({ input: process.stdin })) {
  const { command, tab, run, level, metered } = JSON.parse(line);
  if (command === "stop") break;
  if (command === "close") {
    await pages[tab].context().close();
    say(tab, "closed", {});
  }
  if (command === "battery") await pages[tab].evaluate((to) => window.battery.set(to), level);
  if (command === "cover") await pages[tab].context().newPage();
  if (command === "uncover") await pages[tab].bringToFront();
  if (command === "metered") await setMetered(pages[tab], metered);
  if (command === "reload") {
    await pages[tab].goto("about:blank");
    const { data } = options.tabs[tab];
    await enter(tab, { data, own: true });
  }
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
