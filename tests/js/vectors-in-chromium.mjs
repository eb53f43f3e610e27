/** The peer under test in a page of Chromium: JSON lines on stdin, answers on stdout. */

import { createInterface } from "node:readline";
import { openBrowser, serveBundle } from "./pages.mjs";

const requests = [];
for await (const line of createInterface({ input: process.stdin })) requests.push(JSON.parse(line));

const server = await serveBundle();
const browser = await openBrowser();
try {
  const page = await browser.newPage();
  await page.goto(server.url);
  const answers = await page.evaluate(async (given) => {
    const { answer } = await import("/conformance.js");
    const out = [];
    for (const request of given) out.push(await answer(request));
    return out;
  }, requests);
  for (const reply of answers) process.stdout.write(`${JSON.stringify(reply)}\n`);
} finally {
  await browser.close();
  server.close();
}
