/** Where a round stands, as a row of steps. */

import { element } from "./elements.js";

/** Stages of a round as the node tells them, and what a person reads. Training runs beside the first of them. */
const STAGES = [
  ["train", "Train"],
  ["advertise", "Keys"],
  ["share", "Shares"],
  ["collect", "Masked sums"],
  ["unmask", "Unmask"],
  ["sum", "Add up"],
  ["agree", "Agree"],
] as const;

/** The steps of the round that is under way. */
export class Stages {
  readonly node = element("ol", { class: "stages", "aria-label": "Stages of this round" });
  private readonly items = new Map<string, HTMLElement>();

  constructor() {
    for (const [stage, text] of STAGES) {
      const item = element("li", { "data-stage": stage }, text);
      this.items.set(stage, item);
      this.node.append(item);
    }
  }

  /** A new round. */
  reset(): void {
    for (const item of this.items.values()) mark(item, "");
  }

  /** Part of the local training is done. */
  trained(done: number, total: number): void {
    const item = this.items.get("train") as HTMLElement;
    mark(item, done < total ? "now" : "done");
    item.textContent = done < total ? `Train ${Math.floor((100 * done) / total)} %` : "Train";
  }

  /** The exchange has entered a stage: those before it are done. */
  entered(stage: string): void {
    const names = STAGES.map(([name]) => name as string);
    const at = stage === "done" ? names.length : names.indexOf(stage);
    names.forEach((name, i) => {
      const item = this.items.get(name) as HTMLElement;
      if (name === "train" && at <= names.indexOf("collect")) return; // has its own progress
      mark(item, i < at ? "done" : i === at ? "now" : "");
    });
  }
}

function mark(item: HTMLElement, state: "" | "now" | "done"): void {
  item.dataset["state"] = state;
  if (state === "now") item.setAttribute("aria-current", "step");
  else item.removeAttribute("aria-current");
}
