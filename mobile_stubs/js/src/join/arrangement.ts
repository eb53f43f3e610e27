/** The settings that make a dataset of picked files, and the dataset they make. */

import { fromCsv, fromImages, fromNpz, labelOf } from "../datasets/index.js";
import type { Dataset } from "../plans/data.js";
import { choice, element, labelled } from "./elements.js";
import type { Picked } from "./picked.js";

const HELD_OUT = [["0", "nothing"], ["0.1", "one tenth"], ["0.2", "one fifth"], ["0.3", "three tenths"]] as const;

/** A form for one kind of files; `load` reads them as the form stands. */
export interface Arrangement {
  readonly node: HTMLElement;
  load(): Promise<Dataset>;
}

/** The form for what was picked. `changed` is called when a setting was. */
export function arrangementOf(picked: Picked, changed: () => void): Arrangement {
  const name = element("input", { type: "text", value: "data", maxlength: 128, spellcheck: "false", autocomplete: "off" });
  const heldOut = choice(HELD_OUT, "0.2");
  const common = [
    labelled("Name of the dataset", name, "Others see it. A file's own name is not used."),
    labelled("Keep for testing", heldOut, "Never trained on; shows how well the model does on new examples."),
  ];
  const own = picked.kind === "csv" ? forTable(picked) : picked.kind === "images" ? forPictures(picked) : forArrays(picked);
  const node = element("form", { class: "fields" }, ...own.controls, ...common);
  node.addEventListener("change", changed);
  node.addEventListener("submit", (event) => event.preventDefault());
  return { node, load: () => own.load({ name: name.value.trim(), holdOut: Number(heldOut.value) }) };
}

interface Own {
  readonly controls: readonly HTMLElement[];
  load(common: { readonly name: string; readonly holdOut: number }): Promise<Dataset>;
}

function forArrays({ file }: Extract<Picked, { kind: "npz" }>): Own {
  return { controls: [], load: (common) => fromNpz(file, common) };
}

function forTable({ file, header }: Extract<Picked, { kind: "csv" }>): Own {
  const target = choice([["", "none: every column is a field"], ...header.map((column) => [column, column] as const)], header.at(-1) ?? "");
  const inputs = element("input", { type: "text", value: "features", maxlength: 128, spellcheck: "false", autocomplete: "off" });
  const ignore = element("input", { type: "text", spellcheck: "false", autocomplete: "off", placeholder: "name, id_*" });
  return {
    controls: [
      labelled("Column with the answer", target, "What the model is to tell. All other columns become one field."),
      labelled("Name of that field", inputs, "As the plan calls its input."),
      labelled("Columns to leave out", ignore, "Names or patterns, with commas between."),
    ],
    load: (common) => {
      const left = ignore.value.split(",").map((part) => part.trim()).filter((part) => part !== "");
      const targets = target.value === "" ? {} : { targets: target.value, inputs: inputs.value.trim() };
      return fromCsv(file, { ...common, ...targets, ignore: left });
    },
  };
}

function forPictures({ files }: Extract<Picked, { kind: "images" }>): Own {
  const isFolder = files.every((file) => labelOf(file, "folder") !== "");
  const side = element("input", { type: "number", value: "28", min: "1", max: "4096", step: "1" });
  const channels = choice([["1", "grey"], ["3", "colour"]], "1");
  const flat = choice([["false", "channels × height × width"], ["true", "one row of numbers"]], "false");
  const scale = element("input", { type: "number", value: "1", min: "0.001", step: "any" });
  const labels = choice([["folder", "the folder it is in"], ["prefix", "its name up to _ or -"], ["none", "it has none"]], isFolder ? "folder" : "prefix");
  const classes = element("input", { type: "text", spellcheck: "false", autocomplete: "off", value: classesOf(files, isFolder ? "folder" : "prefix") });
  labels.addEventListener("change", () => {
    classes.value = labels.value === "none" ? "" : classesOf(files, labels.value as "folder" | "prefix");
  });
  return {
    controls: [
      labelled("Width and height", side, "Pixels; every picture is scaled to a square."),
      labelled("Colours", channels),
      labelled("White is", scale, "Black is 0."),
      labelled("One example is", flat),
      labelled("A picture's label is", labels),
      labelled("Labels in the plan's order", classes, "With commas between; empty where labels are numbers."),
    ],
    load: (common) => {
      const order = classes.value.split(",").map((part) => part.trim()).filter((part) => part !== "");
      return fromImages(files, {
        ...common,
        size: [Number(side.value), Number(side.value)],
        channels: channels.value === "3" ? 3 : 1,
        scale: Number(scale.value),
        flat: flat.value === "true",
        labels: labels.value as "folder" | "prefix" | "none",
        ...(order.length > 0 ? { classes: order } : {}),
      });
    },
  };
}

/** The labels found, in order; "" where all are numbers, which count themselves. */
function classesOf(files: Extract<Picked, { kind: "images" }>["files"], labels: "folder" | "prefix"): string {
  const found = [...new Set(files.map((file) => labelOf(file, labels)))].filter((label) => label !== "").sort();
  return found.every((label) => /^\d+$/.test(label)) ? "" : found.join(", ");
}
