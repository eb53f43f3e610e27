/** A plan's card: everything an owner should know before saying yes, and the two answers. */

import type { NodeEvents } from "../node/events.js";
import { dataFields } from "../protocol/manifest.js";
import { threshold } from "../protocol/terms.js";
import { isKnown } from "./authors.js";
import { button, element, facts } from "./elements.js";
import { bytes, count, fingerprint, kind, measure } from "./format.js";

type Offer = NodeEvents["offer"];

/** What the owner may answer. */
export interface Answers {
  accept(): Promise<void>;
  refuse(): Promise<void>;
}

/** Bytes one peer sends in a round at least: its masked chunks to their owners, and its own chunk's sum to all. */
export function roundBytes({ manifest, terms }: Pick<Offer, "manifest" | "terms">): number {
  const length = sharedCount(manifest) + (terms.evaluate ? 2 : 1) * (1 + manifest.metrics.length);
  const peers = terms.cohort_size;
  return Math.ceil((2 * length * terms.ring_bits * (peers - 1)) / (8 * peers)) * terms.replicas;
}

/** Numbers of the model that are trained in common; the others never leave. */
function sharedCount(manifest: Offer["manifest"]): number {
  return manifest.parameter_count - manifest.local_count + manifest.buffer_count;
}

/** The card of an offer. */
export function card(offer: Offer, answers: Answers): HTMLElement {
  const { manifest, verdict, run } = offer;
  const title = element("h3", { id: `offer-${run}` }, `${manifest.name} `, element("small", {}, `version ${manifest.version}`));
  const body = [
    manifest.description === "" ? null : element("p", { class: "lead" }, manifest.description),
    signature(offer),
    element("div", { class: "columns" }, reads(offer), leaves(offer), privacy(offer), work(offer)),
  ];
  return element("article", { class: "card", "aria-labelledby": `offer-${run}`, "data-run": run }, title, ...body, verdict.accepted ? choices(answers) : refused(offer));
}

function signature({ author }: Offer): HTMLElement {
  const known = isKnown(author);
  return element(
    "p",
    { class: "signed" },
    element("span", { class: known ? "tag good" : "tag warn" }, known ? "Author known to this device" : "Author new to this device"),
    " Signed by ",
    element("code", { title: author }, fingerprint(author)),
    known ? null : element("span", { class: "help" }, " Compare it with what the author told you some other way."),
  );
}

function reads({ manifest, verdict }: Offer): HTMLElement {
  const fields = dataFields(manifest).map((field) => element("li", {}, element("strong", {}, field.name), ` ${kind(field)}`));
  return part("Reads on this device", element("ul", {}, ...fields), element("p", { class: "help" }, `From your dataset “${verdict.dataset ?? "none fits"}”.`));
}

function leaves({ manifest, terms }: Offer): HTMLElement {
  return part(
    "Leaves this device",
    element(
      "ul",
      {},
      element("li", {}, `a masked update of ${count(sharedCount(manifest))} numbers per round, unreadable by itself`),
      element("li", {}, `within it, your weight${manifest.metrics.length === 0 ? "" : ` and ${manifest.metrics.map((metric) => metric.name).join(", ")}`}: known as a sum alone`),
      element("li", {}, `about ${bytes(roundBytes({ manifest, terms }))} a round, beside set-up messages`),
    ),
    manifest.local_count === 0 ? null : stays(manifest),
    element("p", { class: "help" }, "Values and labels do not leave. How many examples you have is part of the sum alone."),
  );
}

/** Of a plan that leaves a part of the model to each peer: what all train, and what is this device's. */
function stays(manifest: Offer["manifest"]): HTMLElement {
  const [shared, own] = [sharedCount(manifest), manifest.local_count].map(count);
  return element("p", {}, `Of the model, ${shared} numbers are trained in common. ${own} more are yours alone: trained and kept here, sent to nobody.`);
}

function privacy({ terms }: Offer): HTMLElement {
  const survivors = Math.max(threshold(terms.min_cohort), terms.min_survivors);
  return part(
    "Privacy terms",
    facts([
      [terms.cohorts === 1 ? "Peers in a round" : "Peers in a group", terms.min_cohort === terms.cohort_size ? `${terms.cohort_size}` : `${terms.min_cohort} to ${terms.cohort_size}`],
      ...(terms.cohorts === 1 ? [] : [["Such groups in a round", `up to ${count(terms.cohorts)}`] as const]),
      ["A sum is over", `${survivors} or more`],
      ["Each number is cut to", `±${measure(terms.clip)}`],
      ["Differential privacy", element("strong", { class: "warn" }, "none yet")],
    ]),
  );
}

function work({ manifest, terms }: Offer): HTMLElement {
  const download = manifest.blobs.reduce((sum, blob) => sum + blob.size, 0);
  return part(
    "Work",
    facts([
      ["Rounds", count(terms.rounds)],
      ["Passes over your data", `${terms.local.epochs} a round`],
      ["Examples a round", `${count(terms.local.max_examples)} at most`],
      ["To fetch first", `plan of ${bytes(download)}`],
    ]),
  );
}

function part(title: string, ...children: readonly (HTMLElement | null)[]): HTMLElement {
  return element("section", {}, element("h4", {}, title), ...children);
}

function choices({ accept, refuse }: Answers): HTMLElement {
  return element("div", { class: "row answers" }, button("Accept and train", "primary", accept), button("Refuse", "quiet", refuse));
}

function refused({ verdict }: Offer): HTMLElement {
  return element("p", { class: "notice" }, element("strong", {}, "Refused for you by your rules: "), verdict.reason);
}
