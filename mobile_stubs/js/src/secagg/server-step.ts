/**
 * One step of a server optimizer, in the order and rounding of spec 07 §9.
 *
 * Every operation rounds to binary64 by itself; m, v and theta are rounded to binary32 once, where they are stored.
 */

import type { ServerOptimizer } from "../protocol/server-optimizer.js";

type Floats = Float32Array<ArrayBuffer>;

/**
 * Put the moments after a step into `moments`.
 *
 * @param change the mean update of theta (binary64).
 * @param moments m, then v where the optimizer keeps one; overwritten.
 * @returns what is to be added to parameter i.
 */
export function serverStep(
  optimizer: ServerOptimizer,
  change: (i: number) => number,
  moments: readonly Floats[],
): (i: number) => number {
  const { learning_rate: rate, beta1, beta2, tau } = optimizer;
  const [first, second] = [1 - beta1, 1 - beta2];
  const [m, v] = moments as [Floats, Floats];
  const adapted = (i: number) => (rate * (m[i] as number)) / (Math.sqrt(v[i] as number) + tau);
  switch (optimizer.kind) {
    case "fedavg":
      return (i) => rate * change(i);
    case "fedavgm":
      return (i) => {
        m[i] = beta1 * (m[i] as number) + change(i);
        return rate * m[i];
      };
    case "fedadam":
      return (i) => {
        const d = change(i);
        m[i] = beta1 * (m[i] as number) + first * d;
        v[i] = beta2 * (v[i] as number) + second * (d * d);
        return adapted(i);
      };
    case "fedyogi":
      return (i) => {
        const d = change(i);
        const square = d * d;
        m[i] = beta1 * (m[i] as number) + first * d;
        const old = v[i] as number;
        v[i] = old - second * square * Math.sign(old - square);
        return adapted(i);
      };
  }
}
