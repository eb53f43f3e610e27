/**
 * One tab of Chromium that does what a person does: options as JSON in argv, steps as JSON lines on stdin.
 *
 * Each step {id, do, …} is answered by {name: "answered", id, value, failed}; `failed` is null or says why.
 */

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { openBrowser } from "./pages.mjs";

const require = createRequire(new URL("../../mobile_stubs/js/package.json", import.meta.url));
const options = JSON.parse(process.argv[2]);
const say = (name, event) => process.stdout.write(`${JSON.stringify({ ...event, name })}\n`);

const browser = await openBrowser(options.flags);
const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
if (options.before) await context.addInitScript(options.before);
const page = await context.newPage();
page.setDefaultTimeout(180_000);
let connection = null;
if (options.between) {
  await page.routeWebSocket(/.*/, (socket) => {
    socket.connectToServer();
    connection = socket;
  });
}
/** Answers instead of the server's, each once: "break" or a status, for addresses that end alike. */
for (const [ending, instead] of options.instead ?? []) {
  await context.route(
    (url) => url.pathname.endsWith(ending),
    (route) => {
      say("instead", { ending });
      return instead === "break" ? route.abort("connectionreset") : route.fulfill({ status: instead });
    },
    { times: 1 },
  );
}
const asked = [];
page.on("request", (request) => asked.push(request.url()));
page.on("websocket", (socket) => asked.push(socket.url()));
page.on("pageerror", (error) => say("pageerror", { message: String(error) }));
page.on("console", (message) => {
  if (message.type() === "error") say("console", { message: message.text() });
});

/** By role and accessible name, as a screen reader finds it. */
const found = ({ role, called, selector }) => (role === undefined ? page.locator(selector) : page.getByRole(role, { name: called }));

const steps = {
  goto: async ({ url }) => (await page.goto(url)).status(),
  click: (step) => found(step).click(),
  press: ({ key }) => page.keyboard.press(key),
  focused: () => page.evaluate(() => document.activeElement?.textContent?.trim() ?? ""),
  focus: (step) => found(step).focus(),
  fill: ({ label, value }) => page.getByLabel(label, { exact: true }).fill(value),
  select: ({ label, value }) => page.getByLabel(label, { exact: true }).selectOption(value),
  until: (step) => found(step).first().waitFor({ state: step.state ?? "visible" }),
  text: (step) => found(step).first().innerText(),
  texts: (step) => found(step).allInnerTexts(),
  attribute: ({ selector, attribute }) => page.locator(selector).first().getAttribute(attribute),
  evaluate: ({ script }) => page.evaluate(script),
  requests: () => asked,
  /** Something that the signaling server never said; the tab was opened with `between`. */
  forge: ({ text }) => connection.send(text),
  async pick({ button, paths }) {
    const chooser = page.waitForEvent("filechooser");
    await page.getByRole("button", { name: button, exact: true }).click();
    await (await chooser).setFiles(paths);
  },
  /** Files with text in them, dragged from elsewhere and dropped. */
  drop: ({ selector, files }) =>
    page.locator(selector).evaluate((target, given) => {
      const dataTransfer = new DataTransfer();
      for (const [name, text] of given) dataTransfer.items.add(new File([text], name));
      for (const type of ["dragenter", "dragover", "drop"]) {
        target.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
      }
    }, files),
  /** What another tab of the same browser is told at an address. */
  async elsewhere({ url }) {
    const other = await context.newPage();
    await other.goto(url);
    await other.locator("#problems .notice").waitFor();
    const told = await other.locator("#problems").innerText();
    await other.close();
    return told;
  },
  /** Strokes as lists of points, in parts of the canvas. */
  async draw({ strokes }) {
    const canvas = page.locator("canvas");
    await canvas.scrollIntoViewIfNeeded();
    const box = await canvas.boundingBox();
    for (const stroke of strokes) {
      const points = stroke.map(([x, y]) => [box.x + x * box.width, box.y + y * box.height]);
      await page.mouse.move(...points[0]);
      await page.mouse.down();
      for (const point of points.slice(1)) await page.mouse.move(...point);
      await page.mouse.up();
    }
  },
  /** Violations of WCAG 2.2 A and AA, light and dark, as axe finds them. */
  async accessibility() {
    await page.evaluate(readFileSync(require.resolve("axe-core/axe.min.js"), "utf8"));
    const problems = [];
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
      for (const { id, nodes } of violations) problems.push(`${colorScheme}: ${id}: ${nodes.map((node) => node.html).join(" | ")}`);
    }
    await page.emulateMedia({ colorScheme: null, reducedMotion: null });
    return problems;
  },
  /** The page at two widths; gives how far it is wider than the window at each. */
  async screenshots({ folder, state }) {
    const over = [];
    for (const width of [1280, 390]) {
      await page.setViewportSize({ width, height: width === 390 ? 844 : 900 });
      await page.screenshot({ path: `${folder}/${state}-${width}.png`, fullPage: true });
      over.push(await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth));
    }
    await page.emulateMedia({ colorScheme: "dark" });
    await page.setViewportSize({ width: 1280, height: 900 });
    await page.screenshot({ path: `${folder}/${state}-1280-dark.png`, fullPage: true });
    await page.emulateMedia({ colorScheme: null });
    return over;
  },
};

say("registered", {});
for await (const line of createInterface({ input: process.stdin })) {
  const step = JSON.parse(line);
  try {
    say("answered", { id: step.id, value: (await steps[step.do](step)) ?? null, failed: null });
  } catch (error) {
    say("answered", { id: step.id, value: null, failed: String(error) });
  }
}
await browser.close();
