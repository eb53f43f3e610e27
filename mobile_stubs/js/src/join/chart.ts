/** A line chart of one metric over rounds: what was trained on, and what was held out. */

import { drawn, element } from "./elements.js";
import { measure } from "./format.js";

/** Width before the page has laid the chart out; from then on one unit is one pixel, so that text keeps its size. */
const FIRST_WIDTH = 480;
const HEIGHT = 220;
const LEFT = 52;
const RIGHT = 12;
const TOP = 12;
const BOTTOM = 28;

/** A line of a chart; a null is a round without a value. */
export interface Line {
  readonly name: string;
  readonly values: readonly (number | null)[];
}

/** A chart that is drawn anew with every round. */
export class Chart {
  readonly node: HTMLElement;
  private readonly drawing = drawn("svg", { role: "img", class: "chart" });
  private readonly summary = element("p", { class: "latest" });
  private width = FIRST_WIDTH;
  private shown: readonly [first: number, lines: readonly Line[]] = [0, []];

  /** @param rounds that the run will have; the axis is that long from the start. */
  constructor(
    private readonly title: string,
    private readonly rounds: number,
  ) {
    this.node = element("figure", {}, element("figcaption", {}, title), this.summary, this.drawing);
    this.redraw();
    new ResizeObserver(([entry]) => {
      const width = Math.round(entry?.contentRect.width ?? 0);
      if (width === 0 || width === this.width) return;
      this.width = width;
      this.redraw();
    }).observe(this.node);
  }

  /** Show rounds `first` and on. */
  draw(first: number, lines: readonly Line[]): void {
    this.shown = [first, lines];
    this.redraw();
  }

  private redraw(): void {
    const { width } = this;
    const [first, lines] = this.shown;
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const known = lines.flatMap((line) => line.values).filter((value) => value !== null);
    const ticks = ticksOf(known);
    const [low, high] = [ticks[0] as number, ticks.at(-1) as number];
    const x = (round: number) => LEFT + ((round - 1) / Math.max(1, this.rounds - 1)) * (width - LEFT - RIGHT);
    const y = (value: number) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
    const grid = ticks.flatMap((value) => [
      drawn("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      drawn("text", { class: "tick", x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, known.length === 0 ? "" : measure(value)),
    ]);
    const ends = [...new Set([1, this.rounds])].map((round) =>
      drawn("text", { class: "tick", x: x(round), y: HEIGHT - 8, "text-anchor": round === 1 ? "start" : "end" }, `round ${round}`),
    );
    const curves = lines.flatMap((line, number) => this.curve(line, number, (i) => x(first + i), y));
    const told = lines.map((line) => `${line.name} ${lastOf(line)}`).join(", ");
    const name = drawn("title", {}, known.length === 0 ? `${this.title}: no round yet` : `${this.title} by round; latest: ${told}`);
    this.drawing.replaceChildren(name, ...grid, ...ends, ...curves);
    const legend = lines.map((line, number) => element("span", { class: `key line-${number}` }, `${line.name} `, element("b", {}, lastOf(line))));
    this.summary.replaceChildren(...(legend.length > 0 ? legend : [element("span", {}, "Drawn after the first round")]));
  }

  private curve(line: Line, number: number, x: (i: number) => number, y: (value: number) => number): SVGElement[] {
    const points = line.values.flatMap((value, i) => (value === null ? [] : [[x(i), y(value)] as const]));
    const last = points.at(-1);
    if (last === undefined) return [];
    const path = points.map(([px, py]) => `${px.toFixed(1)},${py.toFixed(1)}`).join(" ");
    return [
      drawn("polyline", { class: `curve line-${number}`, points: path, "data-points": points.length }),
      drawn("circle", { class: `dot line-${number}`, cx: last[0], cy: last[1], r: 4 }),
    ];
  }
}

function lastOf(line: Line): string {
  const value = line.values.findLast((item) => item !== null);
  return value === undefined ? "–" : measure(value);
}

/** Three to six round numbers around all values; measures between 0 and 1 do not leave these. */
function ticksOf(values: readonly number[]): readonly number[] {
  if (values.length === 0) return [0, 0.5, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const span = high - low || Math.abs(high) * 0.2 || 1;
  const power = 10 ** Math.floor(Math.log10(span / 3));
  const step = ([1, 2, 2.5, 5, 10].find((factor) => factor * power >= span / 4) as number) * power;
  const first = Math.floor(low / step);
  const last = Math.max(first + 2, Math.ceil(high / step));
  const all = Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
  return low >= 0 && high <= 1 ? all.filter((tick) => tick <= 1 || tick - step < high) : all;
}
