/** Whether a device may work now: asked before a run is joined and before each round (spec 06 §3). */

/** What speaks against working now: the owner's rule, and one sentence for people. */
export interface Objection {
  readonly rule: string;
  readonly reason: string;
}

/** What tells a node of the device it runs on. */
export interface Device {
  /** Null where the device may work; otherwise what speaks against it. */
  whyNotNow(): Promise<Objection | null>;
  /** Call `listener` whenever the answer may have changed; gives what ends that. */
  onChange(listener: () => void): () => void;
}

/** A device that may always work. */
export const ALWAYS: Device = {
  whyNotNow: () => Promise.resolve(null),
  onChange: () => () => undefined,
};
