/** A square to draw in with mouse, pen or finger. */

import { button, element } from "./elements.js";

const WIDTH = 140;
const PEN = 13;

/** The drawing; `changed` is called while it changes. */
export class Drawing {
  readonly node: HTMLElement;
  private readonly canvas = element("canvas", { width: WIDTH, height: WIDTH, class: "draw", role: "img", "aria-label": "Your drawing, white on black" });
  private readonly sheet = element("div", { class: "sheet" }, this.canvas);
  private readonly context: CanvasRenderingContext2D;
  private last: readonly [number, number] | null = null;

  constructor(
    private readonly changed: () => void,
    useExample: () => void,
  ) {
    const context = this.canvas.getContext("2d", { willReadFrequently: true });
    if (context === null) throw new Error("this browser gave no canvas to draw in");
    this.context = context;
    this.blank();
    this.canvas.addEventListener("pointerdown", (event) => this.begin(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, () => (this.last = null));
    const clear = () => {
      this.blank();
      changed();
    };
    this.node = element("div", { class: "drawing" }, this.sheet, element("div", { class: "row" }, button("Clear", "quiet", clear), button("Use one of mine", "quiet", useExample)));
  }

  /** How much ink there is, 0 to 1, row by row. */
  ink(): { readonly ink: Float32Array; readonly width: number } {
    const { data } = this.context.getImageData(0, 0, WIDTH, WIDTH);
    return { ink: Float32Array.from({ length: WIDTH * WIDTH }, (_, i) => (data[4 * i] as number) / 255), width: WIDTH };
  }

  /** Show a picture of `side` squared values, 0 to 1. */
  show(values: readonly number[], side: number): void {
    this.blank();
    this.sheet.dataset["isEmpty"] = "false";
    const size = WIDTH / side;
    values.forEach((value, i) => {
      const grey = Math.round(255 * Math.min(1, Math.max(0, value)));
      this.context.fillStyle = `rgb(${grey} ${grey} ${grey})`;
      this.context.fillRect(Math.floor((i % side) * size), Math.floor(Math.floor(i / side) * size), Math.ceil(size), Math.ceil(size));
    });
  }

  private blank(): void {
    this.sheet.dataset["isEmpty"] = "true";
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, WIDTH, WIDTH);
  }

  private begin(event: PointerEvent): void {
    this.canvas.setPointerCapture(event.pointerId);
    this.last = null;
    this.stroke(event);
  }

  private move(event: PointerEvent): void {
    if (this.last !== null) this.stroke(event);
  }

  private stroke(event: PointerEvent): void {
    const box = this.canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * WIDTH;
    const y = ((event.clientY - box.top) / box.height) * WIDTH;
    const [fromX, fromY] = this.last ?? [x, y];
    this.context.strokeStyle = "#fff";
    this.context.lineWidth = PEN;
    this.context.lineCap = "round";
    this.context.beginPath();
    this.context.moveTo(fromX, fromY);
    this.context.lineTo(x, y);
    this.context.stroke();
    this.last = [x, y];
    this.sheet.dataset["isEmpty"] = "false";
    this.changed();
  }
}
