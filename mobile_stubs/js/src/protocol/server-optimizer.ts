/** The server optimizer of a run (spec 06 §1, 07 §9): how every peer turns a round's mean update into the next model. */

import { number, type Of, oneOf, optional, record } from "./schema.js";

const DEFAULTS = { kind: "fedavg", learning_rate: 1, beta1: 0.9, beta2: 0.99, tau: 0.001 } as const;

const beta = (fallback: number) => optional(number({ least: 0, below: 1 }), fallback);

export const serverOptimizerSchema = record({
  kind: optional(oneOf("fedavg", "fedavgm", "fedadam", "fedyogi"), DEFAULTS.kind),
  learning_rate: optional(number({ above: 0, most: 1e3 }), DEFAULTS.learning_rate),
  beta1: beta(DEFAULTS.beta1),
  beta2: beta(DEFAULTS.beta2),
  tau: optional(number({ least: 1e-9, most: 1 }), DEFAULTS.tau),
});
/** What is done with the mean update of theta; buffers always take the mean as it is. */
export type ServerOptimizer = Of<typeof serverOptimizerSchema>;

/** What terms without the field mean. */
export const FEDAVG: ServerOptimizer = DEFAULTS;

/** What each moment's elements are before the first round: m zero, v binary32(tau * tau). */
export function initialMoments(optimizer: ServerOptimizer): number[] {
  const kept = { fedavg: 0, fedavgm: 1, fedadam: 2, fedyogi: 2 }[optimizer.kind];
  return [0, Math.fround(optimizer.tau * optimizer.tau)].slice(0, kept);
}
