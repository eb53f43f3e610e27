/** STUN and TURN servers that this page's own server names; credentials are kept in memory alone, and renewed. */

import type { IceServer } from "../node/platform.js";
import { EncodingError } from "../protocol/errors.js";
import { decodeJson, integer, list, nullable, optional, record, text } from "../protocol/schema.js";

const MAX_BYTES = 16_384;
const AGAIN_S = 60;
/** The page opens when the server has told or this time is over. */
const ANSWER_MS = 10_000;

const SCHEMA = record({
  ice_servers: list(
    record({
      urls: list(text(300, { pattern: /^(?:stuns?|turns?):\S+$/ }), { least: 1, most: 4 }),
      username: optional(text(512), ""),
      credential: optional(text(512), ""),
    }),
    { most: 8 },
  ),
  /** How long credentials open relays; null where there are none. */
  lifetime_s: nullable(integer(60, 30 * 86_400)),
});

/** What the server told last. A page that could not ask goes on with what it has, says so, and asks again. */
export class OfferedIceServers {
  private told: readonly IceServer[] = [];

  /** `onTold` is called with the hosts whenever the server has told, `onProblem` whenever it could not be asked. */
  constructor(
    private readonly onTold: (hosts: readonly string[]) => void,
    private readonly onProblem: (reason: string) => void,
  ) {}

  get servers(): readonly IceServer[] {
    return this.told;
  }

  /** Ask, now and again at half of what credentials last; never rejects. */
  async load(): Promise<void> {
    let nextS: number | null = AGAIN_S;
    try {
      const { ice_servers, lifetime_s } = decodeJson(await fetched(), SCHEMA, "ICE servers", MAX_BYTES);
      this.told = ice_servers.map(({ urls, username, credential }) => ({
        urls: [...urls],
        ...(username === "" ? {} : { username, credential }),
      }));
      nextS = lifetime_s === null ? null : lifetime_s / 2;
      this.onTold([...new Set(ice_servers.flatMap(({ urls }) => urls.map(hostOf)))]);
    } catch (error) {
      this.onProblem(error instanceof Error ? error.message : String(error));
    }
    if (nextS !== null) setTimeout(() => void this.load(), 1000 * nextS);
  }
}

async function fetched(): Promise<string> {
  const response = await fetch(new URL("./ice-servers.json", import.meta.url), {
    cache: "no-store",
    signal: AbortSignal.timeout(ANSWER_MS),
  });
  if (!response.ok) throw new EncodingError(`HTTP ${response.status}`);
  return response.text();
}

/** The host of an address as in WebRTC, without its port. */
function hostOf(url: string): string {
  return url.replace(/^[a-z]+:/, "").replace(/(?::\d+)?(?:\?.*)?$/, "");
}
