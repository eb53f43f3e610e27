/** Trying the model this device holds on one's own input; the answer is made here. */

import type { Tensor } from "../node/platform.js";
import type { Dataset } from "../plans/data.js";
import type { PlanManifest } from "../protocol/manifest.js";
import { Drawing } from "./drawing.js";
import { button, drawn, element, labelled } from "./elements.js";
import { anyExample, exampleOf, rangeOf, tensorOf } from "./examples.js";
import { measure, percent } from "./format.js";
import { pictureSide, shrink } from "./pictures.js";
import { showError } from "./problems.js";

const MOST_BARS = 20;

/** Gives the model's outputs for one example. */
export type Predict = (inputs: Readonly<Record<string, Tensor>>) => Promise<Tensor>;

/** The part of a run's panel in which its model is tried. */
export class TryIt {
  readonly node: HTMLElement;
  private readonly answer = element("div", { class: "answer", role: "status", "aria-live": "polite" });
  private readonly version = element("p", { class: "help" }, "The model as it begins: it has learned nothing yet.");
  private readonly ask: () => void;
  private inputs: Readonly<Record<string, Tensor>> | null = null;
  private truth: string | null = null;
  private isAsking = false;

  constructor(
    private readonly manifest: PlanManifest,
    private readonly dataset: Dataset,
    private readonly predict: Predict,
  ) {
    this.ask = () => void this.askOnce();
    this.node = element(
      "section",
      { class: "try", "aria-label": `Try the model of ${manifest.name}` },
      element("h3", {}, "Try the model"),
      this.version,
      element("div", { class: "trying" }, this.picture() ?? this.form(), this.answer),
    );
    this.tell("Draw something, or take one of your own examples.");
  }

  /** There is a newer model: what was asked is asked again. */
  renewed(round: number): void {
    const own = this.manifest.local_count > 0 ? " with the part that is yours alone" : "";
    this.version.textContent = `The model after round ${round}, on this device${own}.`;
    this.ask();
  }

  private picture(): HTMLElement | null {
    const [input, ...others] = this.manifest.inputs;
    if (input === undefined || others.length > 0) return null;
    const like = this.dataset.fields[input.name];
    const side = pictureSide(input, like?.shape ?? input.shape);
    if (side === null) return null;
    const [low, high] = rangeOf(this.dataset, input.name);
    const span = high > low ? high - low : 1;
    const drawing: Drawing = new Drawing(
      () => {
        const { ink, width } = drawing.ink();
        const values = shrink(ink, width, side);
        this.truth = null;
        this.inputs = values.some((value) => value > 0) ? { [input.name]: tensorOf(input, like, [...values].map((value) => low + value * span)) } : null;
        if (this.inputs === null) this.tell("Draw something, or take one of your own examples.");
        this.ask();
      },
      () => {
        const at = anyExample(this.dataset);
        const values = exampleOf(this.dataset, input.name, at);
        drawing.show(values.map((value) => (value - low) / span), side);
        this.take({ [input.name]: tensorOf(input, like, values) }, at);
      },
    );
    return drawing.node;
  }

  private form(): HTMLElement {
    const boxes = this.manifest.inputs.map((input) => {
      const like = this.dataset.fields[input.name];
      const size = (like?.shape ?? input.shape).reduce((product, length) => product * length, 1);
      const box = element("textarea", { rows: Math.min(6, Math.ceil(size / 8)), spellcheck: "false", inputmode: "decimal" });
      return { input, like, size, box };
    });
    const example = () => {
      const at = anyExample(this.dataset);
      for (const { input, box } of boxes) box.value = exampleOf(this.dataset, input.name, at).map((value) => measure(value).replaceAll(",", "")).join(", ");
      this.takeForm(boxes, at);
    };
    const controls = boxes.map(({ input, size, box }) => labelled(input.name, box, size === 1 ? "One number." : `${size} numbers with commas between, as in a row of a table.`));
    const row = element("div", { class: "row" }, button("Predict", "primary", () => this.takeForm(boxes, null)), button("Use one of mine", "quiet", example));
    return element("div", { class: "values" }, ...controls, row);
  }

  private takeForm(boxes: readonly { input: PlanManifest["inputs"][number]; like: Dataset["fields"][string] | undefined; size: number; box: HTMLTextAreaElement }[], at: number | null): void {
    const inputs: Record<string, Tensor> = {};
    for (const { input, like, size, box } of boxes) {
      const values = box.value.split(/[\s,;]+/).filter((part) => part !== "").map(Number);
      if (values.length !== size || !values.every(Number.isFinite)) {
        this.inputs = null;
        box.setAttribute("aria-invalid", "true");
        this.tell(`${input.name}: expected ${size} numbers, got ${values.length}${values.every(Number.isFinite) ? "" : ", not all of them numbers"}.`);
        box.focus();
        return;
      }
      box.removeAttribute("aria-invalid");
      inputs[input.name] = tensorOf(input, like, values);
    }
    this.take(inputs, at);
  }

  private take(inputs: Readonly<Record<string, Tensor>>, at: number | null): void {
    const [target, ...others] = this.manifest.targets;
    const known = at === null || target === undefined || others.length > 0 ? [] : exampleOf(this.dataset, target.name, at);
    this.truth = known.length === 1 ? `Its ${target?.name ?? "answer"} in your data: ${known[0]}` : null;
    this.inputs = inputs;
    this.ask();
  }

  /** One question at a time; a drawing in progress is asked about again when the answer is there. */
  private async askOnce(): Promise<void> {
    if (this.isAsking || this.inputs === null) return;
    this.isAsking = true;
    const asked = this.inputs;
    try {
      const output = await this.predict(asked);
      if (this.inputs === asked) this.show(output);
    } catch (error) {
      showError(error);
      this.inputs = null;
    } finally {
      this.isAsking = false;
    }
    if (this.inputs !== asked) await this.askOnce();
  }

  private show({ data, shape }: Tensor): void {
    const values = [...data].map(Number);
    const isChoice = shape.length === 2 && values.length > 1 && values.length <= MOST_BARS && this.manifest.targets[0]?.dtype === "int64";
    const truth = this.truth === null ? null : element("p", { class: "help" }, this.truth);
    if (!isChoice) {
      const shown = values.slice(0, MOST_BARS).map(measure).join(", ") + (values.length > MOST_BARS ? ", …" : "");
      this.answer.replaceChildren(element("p", { class: "result" }, "The model says ", element("strong", {}, shown)), ...(truth === null ? [] : [truth]));
      return;
    }
    const parts = softmax(values);
    const best = parts.indexOf(Math.max(...parts));
    const bars = element("ol", { class: "bars", "aria-label": "How likely each answer is" }, ...parts.map((part, i) => bar(i, part, i === best)));
    this.answer.replaceChildren(
      element("p", { class: "result" }, "The model says ", element("strong", { class: "best" }, String(best)), `, ${percent(parts[best] as number)}`),
      bars,
      ...(truth === null ? [] : [truth]),
    );
  }

  private tell(text: string): void {
    this.answer.replaceChildren(element("p", { class: "help" }, text));
  }
}

function bar(label: number, part: number, isBest: boolean): HTMLElement {
  const drawing = drawn("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, drawn("rect", { width: (100 * part).toFixed(2), height: 10, rx: 1 }));
  return element("li", { class: isBest ? "best" : "" }, element("span", {}, String(label)), drawing, element("span", { class: "part" }, percent(part)));
}

function softmax(values: readonly number[]): number[] {
  const most = Math.max(...values);
  const raised = values.map((value) => Math.exp(value - most));
  const sum = raised.reduce((a, b) => a + b, 0);
  return raised.map((value) => value / sum);
}
