/** Whether this device may work now, as far as the browser tells and the owner minds. */

import type { Device, Objection } from "../node/device.js";

/** What an owner minds. What a browser does not tell is not held against the device. */
export interface DeviceRules {
  /** Work on battery only from this level on, 0 to 1; 1 is on mains or a full battery alone. */
  readonly leastBattery?: number;
  /** Work over a connection that the browser calls metered or asks to save; false forbids it. */
  readonly metered?: boolean;
  /** Work while the page cannot be seen; false forbids it. Browsers slow such pages down. */
  readonly hidden?: boolean;
}

interface Battery extends EventTarget {
  readonly charging: boolean;
  readonly level: number;
}
interface Connection extends EventTarget {
  readonly saveData?: boolean;
  readonly type?: string;
}
interface Told {
  readonly connection?: Connection;
  readonly getBattery?: () => Promise<Battery>;
}

/** The device this page runs on, under its owner's rules. */
export function browserDevice(rules: DeviceRules): Device {
  const told = navigator as Told;
  return {
    whyNotNow: () => whyNotNow(rules, told),
    onChange(listener) {
      const over = new AbortController();
      const { signal } = over;
      if (rules.hidden === false) document.addEventListener("visibilitychange", listener, { signal });
      if (rules.metered === false) told.connection?.addEventListener("change", listener, { signal });
      if (rules.leastBattery !== undefined) void watchBattery(told, listener, signal);
      return () => over.abort();
    },
  };
}

async function whyNotNow(rules: DeviceRules, told: Told): Promise<Objection | null> {
  const { leastBattery, metered, hidden } = rules;
  if (hidden === false && document.visibilityState === "hidden") return { rule: "hidden", reason: "the page is hidden" };
  const isMetered = told.connection?.saveData === true || told.connection?.type === "cellular";
  if (metered === false && isMetered) return { rule: "metered", reason: "the connection is metered" };
  const battery = leastBattery === undefined ? null : await batteryOf(told);
  if (leastBattery === undefined || battery === null || battery.charging || battery.level >= leastBattery) return null;
  const [is, asked] = [battery.level, leastBattery].map((level) => Math.round(level * 100));
  return { rule: "leastBattery", reason: `the battery is at ${is} %, the owner asks for ${asked} %` };
}

/** Null where the browser does not tell. */
async function batteryOf(told: Told): Promise<Battery | null> {
  try {
    return (await told.getBattery?.call(navigator)) ?? null;
  } catch {
    return null; // a page may be forbidden to ask
  }
}

async function watchBattery(told: Told, listener: () => void, signal: AbortSignal): Promise<void> {
  const battery = await batteryOf(told);
  for (const name of ["chargingchange", "levelchange"]) battery?.addEventListener(name, listener, { signal });
}
