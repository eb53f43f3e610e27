/**
 * Names of properties that nobody outside the bundle can mean, so that build.mjs may shorten them in it.
 *
 * Those are members in camel case of the node, the round machine and the secure aggregation, less every name that is
 * written in quotes anywhere, or that stands in a file whose values cross the border of the bundle: its API, what is stored,
 * what graphs are fed, and messages to workers. Documents and messages between peers write names in snake case or as one
 * word, so of one word there are only private members whose word no file about documents and messages has at all; terser
 * leaves alone what browsers know.
 */

import { readdirSync, readFileSync } from "node:fs";

const INSIDE = /^(?:round|secagg|node)\//;
const BORDER = [
  /^browser\//,
  /^join\//,
  /^node\/(?:device|errors|events|node|platform|policy|receipts|worker-runtime)\.ts$/,
  /^plans\//,
  /^protocol\/(?:errors|identity|manifest|tail|terms)\.ts$/,
];
const DOCUMENTS = /^(?:protocol|conformance)\//;
const CAMEL = /^[a-z]+[A-Z]/;
/** A member where it is declared: after a bracket, a comma or the margin, and before its type, parameters or value. */
const MEMBER = /(?:^|[{(,])\s*(?:(?:private|readonly|static|async|get|set|override) )*\*?([a-z]\w*)(?=[?!]?\s*[:(<=])/gm;
const PRIVATE = /\bprivate (?:readonly |static |async |get |set )*([a-z]+)\b/g;
const COMMENT = /\/\*[^]*?\*\/|(?<=\s)\/\/.*/g;
const QUOTED = /(["'`])(\w+)\1/g;
const WORD = /(?<!\bthis\.)\b[A-Za-z]\w*/g;

/** The names. */
export function internalNames(folder = "src") {
  const paths = readdirSync(folder, { recursive: true }).map((path) => path.replaceAll("\\", "/"));
  const sources = paths
    .filter((path) => path.endsWith(".ts"))
    .map((path) => ({ path, text: readFileSync(`${folder}/${path}`, "utf8").replace(COMMENT, "") }));
  const names = new Set();
  const words = new Set();
  const kept = new Set();
  const documents = new Set();
  for (const { path, text } of sources) {
    if (INSIDE.test(path)) {
      for (const [, name] of text.matchAll(MEMBER)) if (CAMEL.test(name)) names.add(name);
      for (const [, word] of text.matchAll(PRIVATE)) words.add(word);
    }
    if (DOCUMENTS.test(path)) for (const [name] of text.matchAll(WORD)) documents.add(name);
    for (const [, , name] of text.matchAll(QUOTED)) kept.add(name);
    if (BORDER.some((border) => border.test(path))) for (const [name] of text.matchAll(WORD)) kept.add(name);
  }
  for (const word of words) if (!documents.has(word)) names.add(word);
  return [...names].filter((name) => !kept.has(name));
}
