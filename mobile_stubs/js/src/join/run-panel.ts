/** A run this device takes part in: its rounds as they happen, its curves, and a way out. */

import type { NodeEvents } from "../node/events.js";
import type { PlanManifest } from "../protocol/manifest.js";
import type { RunTerms } from "../protocol/terms.js";
import { Chart, type Line } from "./chart.js";
import { button, element, facts } from "./elements.js";
import { bytes, count, measure } from "./format.js";
import { announce } from "./problems.js";
import { Stages } from "./stages.js";
import type { TryIt } from "./try-it.js";

type Result = NodeEvents["result"];

/** The panel of one run. */
export class RunPanel {
  readonly node: HTMLElement;
  private readonly heading: HTMLElement;
  private readonly standing = element("p", { class: "standing" }, "Waiting for enough peers to begin a round.");
  private readonly stages = new Stages();
  private readonly numbers = element("div", { class: "numbers" });
  private readonly charts: readonly { readonly metric: string; readonly chart: Chart }[];
  private readonly table = element("tbody");
  private readonly stopping: HTMLButtonElement;
  private readonly results: Result[] = [];
  private cohort = 0;
  private sent = 0;
  private received = 0;

  constructor(
    private readonly manifest: PlanManifest,
    private readonly terms: RunTerms,
    private readonly tryIt: TryIt | null,
    stop: () => Promise<void>,
  ) {
    this.heading = element("h2", { tabindex: "-1" }, `${manifest.name}: ${count(terms.rounds)} rounds`);
    this.charts = manifest.metrics.map(({ name }) => ({ metric: name, chart: new Chart(name, terms.rounds) }));
    this.stopping = button("Stop taking part", "quiet", stop);
    this.node = element(
      "section",
      { class: "panel run", "aria-label": `Run ${manifest.name}` },
      element("div", { class: "head" }, this.heading, this.stopping),
      this.standing,
      this.stages.node,
      this.numbers,
      element("div", { class: "charts" }, ...this.charts.map(({ chart }) => chart.node)),
      element("details", {}, element("summary", {}, "Rounds as a table"), this.tableOf()),
      tryIt?.node ?? null,
    );
    this.count();
  }

  /** Bring the reader here. */
  focus(): void {
    this.heading.focus();
  }

  /** A round began. */
  began({ round, cohort, attempt }: NodeEvents["round"]): void {
    this.cohort = cohort.length;
    this.stages.reset();
    this.stands(`Round ${round} of ${this.terms.rounds} with ${cohort.length} peers${attempt > 1 ? `, try ${attempt}` : ""}.`);
    this.node.dataset["round"] = String(round);
    this.count();
  }

  /** Say how things stand, until the run is over. */
  stands(text: string): void {
    if (this.node.dataset["state"] !== "over") this.standing.textContent = text;
  }

  /** A step of training or a stage of the exchange. */
  progressed({ stage, done, total }: NodeEvents["progress"]): void {
    if (stage === "train") this.stages.trained(done, total);
    else this.stages.entered(stage);
  }

  /** This device's group is done, in a round of many; others combine its sum. */
  summed({ round, bytesSent, bytesReceived }: NodeEvents["group"]): void {
    this.sent += bytesSent;
    this.received += bytesReceived;
    this.count();
    this.stands(`Round ${round} of ${this.terms.rounds}: this group is done, its sum is added to the others'.`);
  }

  /** A round's model came from another peer. */
  fetched({ round }: NodeEvents["fetched"]): void {
    this.stands(`This device has the model of round ${round} of ${this.terms.rounds}.`);
    this.tryIt?.renewed(round);
  }

  /** A round gave a model. */
  ended(result: Result): void {
    this.results.push(result);
    this.sent += result.bytesSent;
    this.received += result.bytesReceived;
    this.stages.entered("done");
    const told = this.manifest.metrics.map(({ name }) => `${name} ${shown(best(result, name))}`).join(", ");
    this.stands(`Round ${result.round} of ${this.terms.rounds} is done: ${told}.`); // a quorum may end the run before
    announce(`Round ${result.round} of ${this.terms.rounds}: ${told}`);
    this.node.dataset["done"] = String(result.round);
    this.count();
    this.draw();
    this.table.prepend(this.row(result));
    this.tryIt?.renewed(result.round);
  }

  /** The run is over, or this device has left it. */
  closed(text: string): void {
    this.standing.textContent = text;
    this.node.dataset["state"] = "over";
    this.stopping.hidden = true;
    announce(text);
  }

  private count(): void {
    const last = this.results.at(-1);
    this.numbers.replaceChildren(
      facts([
        ["Peers in the sum", last === undefined ? "–" : `${last.survivors} of ${this.cohort}`],
        ["Sent", bytes(this.sent)],
        ["Received", bytes(this.received)],
        ["Last round took", last === undefined ? "–" : `${(last.milliseconds / 1000).toFixed(1)} s`],
        ["Model", last === undefined ? "–" : element("code", { class: "model", title: last.modelDigest }, last.modelDigest.slice(0, 12))],
      ]),
    );
  }

  private draw(): void {
    const first = this.results[0]?.round ?? 1;
    const last = this.results.at(-1)?.round ?? 0;
    const rounds = Array.from({ length: last - first + 1 }, (_, i) => this.results.find((result) => result.round === first + i));
    for (const { metric, chart } of this.charts) {
      const line = (name: string, read: (result: Result) => number | undefined): Line => {
        return { name, values: rounds.map((result) => (result === undefined ? null : (read(result) ?? null))) };
      };
      const lines = [line("training", (result) => result.metrics.training[metric]), line("kept for testing", (result) => result.metrics.heldOut?.[metric])];
      chart.draw(first, lines.filter((item) => item.values.some((value) => value !== null)));
    }
  }

  private tableOf(): HTMLElement {
    const columns = ["Round", ...this.manifest.metrics.flatMap(({ name }) => [`${name}, training`, `${name}, testing`]), "Peers", "Sent", "Received"];
    const head = element("tr", {}, ...columns.map((text) => element("th", { scope: "col" }, text)));
    return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rounds" }, element("table", {}, element("thead", {}, head), this.table));
  }

  private row({ round, metrics, survivors, bytesSent, bytesReceived }: Result): HTMLElement {
    const values = this.manifest.metrics.flatMap(({ name }) => [shown(metrics.training[name]), shown(metrics.heldOut?.[name])]);
    const cells = [...values, String(survivors), bytes(bytesSent), bytes(bytesReceived)].map((text) => element("td", {}, text));
    return element("tr", {}, element("th", { scope: "row" }, String(round)), ...cells);
  }
}

function best({ metrics }: Result, name: string): number | undefined {
  return metrics.heldOut?.[name] ?? metrics.training[name];
}

function shown(value: number | undefined): string {
  return value === undefined ? "–" : measure(value);
}
