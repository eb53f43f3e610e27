#!/usr/bin/env node
/** Peer under test (spec/peer-under-test.md): JSON lines on stdin, one answer for each on stdout, in order. */

import { createInterface } from "node:readline";
import { answer } from "./answer.js";

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  if (line.trim() !== "") process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line)))}\n`);
}
