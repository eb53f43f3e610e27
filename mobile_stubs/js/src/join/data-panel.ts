/** Picking data: files in, settings, and what others would see of them. */

import type { DeviceRules } from "../browser/eligibility.js";
import type { Dataset } from "../plans/data.js";
import { schemaOf } from "../plans/data.js";
import { arrangementOf } from "./arrangement.js";
import { button, element, facts, labelled } from "./elements.js";
import { count, kind } from "./format.js";
import { type Picked, recognise } from "./picked.js";
import { announce, hideProblem, showError } from "./problems.js";
import { lengthOf } from "./examples.js";

/** What the owner asks of every run, beside looking at it. */
export interface Rules {
  readonly leastPeers: number;
  readonly device: DeviceRules;
  /** A STUN server's address, "" for none. */
  readonly stun: string;
}

/** The least charge, of 1, at which a device that is to be spared works on battery. */
const SPARING_BATTERY = 0.3;

/** The first panel. `connect` is called with a dataset that can be used, and the owner's rules. */
export class DataPanel {
  private readonly arranged = element("div", { class: "arranged" });
  private turn = 0;

  constructor(
    private readonly body: HTMLElement,
    private readonly connect: (dataset: Dataset, rules: Rules) => Promise<void>,
  ) {}

  /** Show the place to drop files, and what was picked before. */
  open(): void {
    this.body.replaceChildren(this.dropZone(), this.arranged);
  }

  /** Show what was connected with, instead of the form. */
  close(dataset: Dataset, disconnect: () => void): void {
    this.body.replaceChildren(seenByOthers(dataset), staysHere(dataset), button("Disconnect", "quiet", disconnect));
  }

  private dropZone(): HTMLElement {
    const files = element("input", { type: "file", multiple: true, accept: ".csv,.npz,image/*", class: "hidden", tabindex: "-1", "aria-hidden": "true" });
    const folder = element("input", { type: "file", webkitdirectory: true, class: "hidden", tabindex: "-1", "aria-hidden": "true" });
    for (const input of [files, folder]) {
      input.addEventListener("change", () => {
        const given = [...(input.files ?? [])];
        input.value = ""; // so that the same file can be picked again
        void this.take(given);
      });
    }
    const zone = element(
      "div",
      { class: "drop", id: "drop" },
      element("p", {}, element("strong", {}, "Drop a file here"), " or"),
      element(
        "div",
        { class: "row" },
        button("Choose a file", "primary", () => files.click()),
        button("Choose a folder of pictures", "quiet", () => folder.click()),
      ),
      element("p", { class: "help" }, "A table (.csv), arrays of numpy (.npz), or pictures. It is read here and goes nowhere."),
      files,
      folder,
    );
    const over = (is: boolean) => (event: DragEvent) => {
      event.preventDefault();
      zone.classList.toggle("over", is);
    };
    zone.addEventListener("dragover", over(true));
    zone.addEventListener("dragleave", over(false));
    zone.addEventListener("drop", (event) => {
      over(false)(event);
      void this.take([...(event.dataTransfer?.files ?? [])]);
    });
    return zone;
  }

  private async take(files: readonly File[]): Promise<void> {
    if (files.length === 0) return; // the chooser was closed
    hideProblem("unusable-data");
    try {
      this.arrange(await recognise(files));
    } catch (error) {
      this.arranged.replaceChildren();
      showError(error);
    }
  }

  private arrange(picked: Picked): void {
    const found = element("div", { class: "found" });
    const arrangement = arrangementOf(picked, () => void this.show(arrangement.load(), found));
    const title = picked.kind === "images" ? `${count(picked.files.length)} pictures` : picked.file.name;
    this.arranged.replaceChildren(element("h3", {}, title), arrangement.node, found);
    void this.show(arrangement.load(), found);
  }

  private async show(loading: Promise<Dataset>, found: HTMLElement): Promise<void> {
    const turn = ++this.turn;
    try {
      const dataset = await loading;
      if (turn !== this.turn) return; // settings have changed meanwhile
      hideProblem("unusable-data");
      found.replaceChildren(seenByOthers(dataset), staysHere(dataset), this.connecting(dataset));
      announce("The file was read. What others would see of it is shown.");
    } catch (error) {
      if (turn !== this.turn) return;
      found.replaceChildren();
      showError(error);
    }
  }

  private connecting(dataset: Dataset): HTMLElement {
    const least = element("input", { type: "number", value: "5", min: "3", max: "64", step: "1" });
    const sparing = element("input", { type: "checkbox", checked: true });
    const metered = element("input", { type: "checkbox", checked: true });
    const stun = element("input", { type: "text", spellcheck: "false", autocomplete: "off", placeholder: "stun:host:port", pattern: "stuns?:[^\\s\\/?]+" });
    const start = button("Connect and look for runs", "primary", async () => {
      if (!least.reportValidity() || !stun.reportValidity()) return;
      await this.connect(dataset, {
        leastPeers: Number(least.value),
        device: { ...(sparing.checked ? { leastBattery: SPARING_BATTERY } : {}), ...(metered.checked ? { metered: false } : {}) },
        stun: stun.value.trim(),
      });
    });
    return element(
      "div",
      { class: "connect" },
      labelled("Smallest group for a sum", least, "Runs that may reveal a sum over fewer peers are refused for you. 3 is the least."),
      element(
        "fieldset",
        {},
        element("legend", {}, "Do not work"),
        element("label", {}, sparing, ` on a battery below ${100 * SPARING_BATTERY} %`),
        element("label", {}, metered, " over a metered connection"),
        element("p", { class: "help" }, "As far as your browser tells."),
      ),
      labelled("Help through a router", stun, "Address of a STUN server, if peers cannot reach you. It learns your internet address, nothing else."),
      start,
    );
  }
}

/** The table of what a node advertises. */
function seenByOthers(dataset: Dataset): HTMLElement {
  const { name, fields } = schemaOf(dataset, false);
  const rows = fields.map((field) => element("tr", {}, element("th", { scope: "row" }, field.name), element("td", {}, kind(field))));
  const head = element("tr", {}, element("th", { scope: "col" }, "Field"), element("th", { scope: "col" }, "One example is"));
  return element(
    "div",
    { class: "seen" },
    element("h3", {}, "What others see"),
    element("table", {}, element("caption", {}, `Dataset “${name}”: names, types and shapes, no values`), element("thead", {}, head), element("tbody", {}, ...rows)),
  );
}

function staysHere(dataset: Dataset): HTMLElement {
  const [all, heldOut] = [lengthOf(dataset), dataset.heldOut ?? 0];
  return element(
    "div",
    { class: "stays" },
    element("h3", {}, "What stays here"),
    facts([
      ["Examples to train on", count(all - heldOut)],
      ["Kept for testing", count(heldOut)],
      ["Their values", "all of them"],
    ]),
  );
}
