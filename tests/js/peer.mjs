/** A JavaScript node for tests: options as JSON in argv, one line of JSON per event on stdout, commands on stdin. */

import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import { Identity, Node } from "../../mobile_stubs/js/dist/nodejs/index.js";

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

const node = await Node.connect(options.url, {
  identity: await Identity.fromSeed(Uint8Array.from(Buffer.from(options.seed, "hex"))),
  folder: options.folder,
  policy: { authors: [options.author], minCohort: 3, minSurvivors: 3 },
  datasets: [dataset],
});
for (const name of ["joined", "ready", "round", "group", "result", "ended", "error"]) node.on(name, (event) => say(name, event));
for (const name of ["result", "fetched"]) node.on(name, ({ run, round }) => say("holds", { run, round }));
node.on("offer", ({ run, author, verdict }) => say("offer", { run, author, verdict }));
say("registered", { peer: node.peerId });

for await (const line of createInterface({ input: process.stdin })) {
  const { command, run } = JSON.parse(line);
  if (command === "stop") break;
  if (command === "model") {
    const held = node.holds(run);
    const bytes = Buffer.from(held.model.buffer).toString("hex");
    say("model", { round: held.round, digest: held.modelDigest, bytes });
  }
}
process.stdin.destroy();
node.stop();
say("stopped", {});
