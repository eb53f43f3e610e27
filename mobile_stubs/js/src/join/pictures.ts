/** Drawings as inputs of a model: which inputs are pictures, and how a drawing becomes the numbers of one. */

import type { DataField } from "../protocol/manifest.js";

/** Sides that a row of numbers is taken to be a square picture of. */
const USUAL_SIDES: readonly number[] = [8, 16, 28, 32];

/** The side of the square grey picture that an input is; null where it is none. */
export function pictureSide(field: DataField, shape: readonly number[]): number | null {
  if (field.dtype !== "float32" && field.dtype !== "uint8") return null;
  const sizes = shape.length === 3 && shape[0] === 1 ? shape.slice(1) : shape;
  if (sizes.length === 2) return sizes[0] === sizes[1] && (sizes[0] as number) >= 6 && (sizes[0] as number) <= 64 ? (sizes[0] as number) : null;
  return sizes.length === 1 ? (USUAL_SIDES.find((side) => side * side === sizes[0]) ?? null) : null;
}

/** How much of a picture's side a digit takes, as in the usual data sets: all of 8, 20 of 28. */
function fill(side: number): number {
  return side < 20 ? 1 : 20 / 28;
}

/**
 * A drawing's ink scaled into a picture: its bounding box fills the usual part of it, and it stands in the middle.
 *
 * @param ink 0 to 1, `width` squared, row by row. @returns `side` squared; all zeros where nothing was drawn.
 */
export function shrink(ink: Float32Array, width: number, side: number): Float32Array {
  const out = new Float32Array(side * side);
  const box = boundsOf(ink, width);
  if (box === null) return out;
  const [left, top, right, bottom] = box;
  const scale = Math.max(right - left, bottom - top) / (side * fill(side));
  const [middleX, middleY] = [(left + right) / 2, (top + bottom) / 2];
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const fromX = middleX + (x - side / 2) * scale;
      const fromY = middleY + (y - side / 2) * scale;
      out[y * side + x] = mean(ink, width, fromX, fromY, scale);
    }
  }
  const most = out.reduce((a, b) => Math.max(a, b), 0);
  return most === 0 ? out : out.map((value) => value / most);
}

function boundsOf(ink: Float32Array, width: number): readonly [number, number, number, number] | null {
  let [left, top, right, bottom] = [width, width, 0, 0];
  ink.forEach((value, i) => {
    if (value < 0.1) return;
    const [x, y] = [i % width, Math.floor(i / width)];
    left = Math.min(left, x);
    top = Math.min(top, y);
    right = Math.max(right, x + 1);
    bottom = Math.max(bottom, y + 1);
  });
  return right > left && bottom > top ? [left, top, right, bottom] : null;
}

/** The mean ink of a square; what lies outside is blank. */
function mean(ink: Float32Array, width: number, left: number, top: number, size: number): number {
  const steps = Math.max(1, Math.ceil(size));
  let sum = 0;
  for (let j = 0; j < steps; j++) {
    for (let i = 0; i < steps; i++) {
      const x = Math.floor(left + ((i + 0.5) * size) / steps);
      const y = Math.floor(top + ((j + 0.5) * size) / steps);
      if (x >= 0 && y >= 0 && x < width && y < width) sum += ink[y * width + x] as number;
    }
  }
  return sum / (steps * steps);
}
