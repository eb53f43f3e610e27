/** A JavaScript node for tests: options as JSON in argv, one line of JSON per event on stdout, commands on stdin. */

import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import { Node } from "../../mobile_stubs/js/dist/node/node.js";
import { Identity, nodePlatform } from "../../mobile_stubs/js/dist/nodejs/index.js";
import { tapped } from "./tap.mjs";

const MODEL = 4; // the kind of a frame that brings models
const RESULT = 10; // the second byte of a RESULT (spec 07 §3)
const options = JSON.parse(process.argv[2]);
const say = (name, event) => process.stdout.write(`${JSON.stringify({ name, ...event })}\n`);

const raw = JSON.parse(readFileSync(options.data, "utf8"));
const dataset = {
  name: "digits",
  fields: {
    image: { dtype: "float32", shape: [64], data: Float32Array.from(raw.image) },
    label: { dtype: "int64", shape: [], data: BigInt64Array.from(raw.label, BigInt), below: 10 },
  },
  heldOut: options.heldOut ?? 0,
};

/** What the node holds of a run, with the parameters that are its own. */
function tellHeld(run) {
  const { round, model, local } = node.holds(run);
  const hex = ({ buffer }) => Buffer.from(buffer).toString("hex");
  say("own", { run, round, bytes: hex(model), local: hex(local) });
}

const platform = await nodePlatform(options.folder);
const node = await Node.connect(options.url, {
  identity: await Identity.fromSeed(Uint8Array.from(Buffer.from(options.seed, "hex"))),
  platform: options.tap === undefined ? platform : tapped(platform, options.tap),
  policy: { authors: [options.author], minCohort: 3, minSurvivors: 3 },
  datasets: [dataset],
  iceServers: options.iceServers ?? [],
});
// what a node holds is told before the event, so that whoever waits for the event has it
if (options.own) for (const name of ["joined", "result"]) node.on(name, ({ run }) => tellHeld(run));
for (const name of ["result", "fetched"]) node.on(name, ({ run, round }) => say("holds", { run, round }));
for (const name of ["joined", "ready", "round", "group", "result", "ended", "error"]) node.on(name, (event) => say(name, event));
node.on("result", ({ round }) => {
  if (round === options.dies) process.exit(3); // at once, as in a crash: nothing later can have been stored
});
node.on("progress", ({ round, stage }) => {
  const [at, signal] = options.signals?.[round] ?? [];
  if (at === stage) process.kill(process.pid, signal); // to itself, so that it is in mid-stage
});
if (options.late) {
  // it hears that the others agree on round 1 only after signaling named round 2
  const [take, announced, held] = [node.onRoundMessage.bind(node), node.announced.bind(node), []];
  node.onRoundMessage = (...message) => (message[1][1] === RESULT ? held.push(message) : take(...message));
  node.announced = (start) => {
    announced(start);
    if (start.round === 1) return;
    node.onRoundMessage = take;
    for (const message of held.splice(0)) take(...message);
  };
}
const links = node.context.switchboard.mesh.context;
const { onLink } = links;
links.onLink = (peer, up, reason) => {
  say("link", { peer, up, reason });
  onLink(peer, up, reason);
};
node.on("offer", ({ run, author, verdict }) => say("offer", { run, author, verdict }));
say("registered", { peer: node.peerId });

for await (const line of createInterface({ input: process.stdin })) {
  const { command, run, peer, inputs } = JSON.parse(line);
  if (command === "stop") break;
  if (command === "model") {
    const held = node.holds(run);
    const bytes = Buffer.from(held.model.buffer).toString("hex");
    say("model", { round: held.round, digest: held.modelDigest, bytes });
  }
  if (command === "pairs") say("pairs", { kinds: globalThis.connections.map((made) => made.getSelectedCandidatePair()?.local.type) });
  if (command === "predict") {
    const data = Float32Array.from(inputs);
    const { data: outputs } = await node.predict(run, { image: { dtype: "float32", shape: [data.length / 64, 64], data } });
    say("predicted", { run, outputs: [...outputs] });
  }
  if (command === "leak") {
    const own = new Uint8Array(node.holds(run).local.buffer);
    node.context.switchboard.mesh.send(peer, MODEL, own);
    await node.decline(run, Buffer.from(own).toString("base64")).catch(() => undefined); // sent; the answer is no matter
    say("leaked", { bytes: Buffer.from(own).toString("hex") });
  }
}
process.stdin.destroy();
node.stop();
say("stopped", {});
