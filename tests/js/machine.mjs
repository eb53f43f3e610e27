/** Gives the JavaScript round machine what a machine was given before: a recording per line in, its outputs out. */

import { createInterface } from "node:readline";
import { indexesOf } from "../../mobile_stubs/js/dist/protocol/bits.js";
import { fromHex, toHex } from "../../mobile_stubs/js/dist/protocol/bytes.js";
import { RoundError } from "../../mobile_stubs/js/dist/protocol/errors.js";
import { Identity } from "../../mobile_stubs/js/dist/protocol/identity.js";
import { RoundMachine } from "../../mobile_stubs/js/dist/round/machine.js";
import { RoundParameters } from "../../mobile_stubs/js/dist/secagg/parameters.js";

function asJson(action) {
  switch (action.action) {
    case "send":
      return ["send", action.to, toHex(action.data), action.bulk];
    case "persist":
      return ["persist", action.entry, action.detail];
    case "stage":
      return ["stage", action.stage];
    case "misbehaviour":
      return ["misbehaviour", action.peer];
    case "work":
      return ["work", action.number];
    case "failed":
      return ["failed", action.reason.split(":")[0]];
    case "revealed": {
      const { sums, survivors, lost } = action.aggregate;
      return ["revealed", [...sums], indexesOf(survivors), lost];
    }
    case "completed": {
      const signatures = [...action.signatures].map(([index, signature]) => [index, toHex(signature)]);
      return ["completed", action.modelDigest, indexesOf(action.survivors), toHex(action.tailDigest), signatures];
    }
  }
}

async function outcomeOf(job) {
  try {
    return { value: await job() };
  } catch (error) {
    if (error instanceof RoundError) return { error };
    throw error;
  }
}

async function give(machine, jobs, given) {
  const { input, now } = given;
  switch (input) {
    case "start":
      return machine.start(now);
    case "tick":
      return machine.tick(now);
    case "fail":
      return machine.fail(given.reason, now);
    case "link_up":
      return machine.linkUp(given.peer, fromHex(given.fingerprint), now);
    case "link_down":
      return machine.linkDown(given.peer, now);
    case "receive":
      return machine.receive(given.peer, fromHex(given.data), given.bulk, now);
    case "provide_update": {
      const values = new Float32Array(fromHex(given.values).buffer);
      return machine.provideUpdate({ values, groups: [{ fraction: given.fraction, ratios: given.ratios }] }, now);
    }
    case "provide_result":
      return machine.provideResult(given.model, fromHex(given.tail), now);
    case "finish_work": {
      const outcome = await outcomeOf(jobs.get(given.number));
      if ("error" in outcome !== given.fails) throw new Error(`job ${given.number}: ${"error" in outcome ? String(outcome.error) : "no error"}`);
      return machine.finishWork(given.number, outcome, now);
    }
  }
  throw new Error(`no input is called ${input}`);
}

async function replay(recording) {
  const machine = await RoundMachine.create({
    parameters: new RoundParameters(recording.parameters),
    identity: await Identity.fromSeed(fromHex(recording.seed)),
    fingerprint: fromHex(recording.fingerprint),
    deadlines: recording.deadlines,
    randomness: fromHex(recording.randomness),
    rounding: async () => Uint32Array.from(recording.randoms),
  });
  const jobs = new Map();
  const outputs = [];
  for (const given of recording.inputs) {
    const actions = await give(machine, jobs, given);
    for (const action of actions) if (action.action === "work") jobs.set(action.number, action.job);
    outputs.push({ actions: actions.map(asJson), due: machine.nextDeadline() });
  }
  return outputs;
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await replay(JSON.parse(line)))}\n`);
}
