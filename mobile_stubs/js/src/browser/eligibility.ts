/** Whether this device may work now, as far as the browser tells and the owner minds. */

/** What an owner minds. What a browser does not tell is not held against the device. */
export interface DeviceRules {
  /** Work on battery only above this level, 0 to 1; 1 is on mains alone. */
  readonly leastBattery?: number;
  /** Work over a connection that the browser calls metered or asks to save. */
  readonly metered?: boolean;
  /** Work while the page cannot be seen. Browsers slow such pages down. */
  readonly hidden?: boolean;
}

interface Battery {
  readonly charging: boolean;
  readonly level: number;
}

/** Null where the device may work; otherwise one sentence that says why not. */
export async function whyNotNow(rules: DeviceRules): Promise<string | null> {
  const { connection, getBattery } = navigator as {
    connection?: { readonly saveData?: boolean; readonly type?: string };
    getBattery?: () => Promise<Battery>;
  };
  if (rules.hidden === false && document.visibilityState === "hidden") return "the page is hidden";
  const isMetered = connection?.saveData === true || connection?.type === "cellular";
  if (rules.metered === false && isMetered) return "the connection is metered";
  if (rules.leastBattery === undefined || getBattery === undefined) return null;
  const battery = await getBattery.call(navigator);
  if (battery.charging || battery.level >= rules.leastBattery) return null;
  return `the battery is at ${Math.round(battery.level * 100)} %, the owner asks for ${Math.round(rules.leastBattery * 100)} %`;
}
