import { describe, expect, it } from "vitest";
import { Identity } from "../src/protocol/identity.js";
import { bitsOf } from "../src/protocol/bits.js";
import { fromHex, toHex } from "../src/protocol/bytes.js";
import { sha256 } from "../src/protocol/crypto.js";
import type { LogEntry } from "../src/protocol/signaling/messages.js";
import type { RunTerms } from "../src/protocol/terms.js";
import { RESULT_LABEL, resultPayload } from "../src/round/codec.js";
import { roundIdOf } from "../src/secagg/parameters.js";
import { checkEntry } from "../src/node/log-checking.js";

const RUN = "11".repeat(32);
const DIGEST = "22".repeat(32);
const terms = { rounds: 3, retries: 1, min_cohort: 4, cohort_size: 5, min_survivors: 3, members: [] } as unknown as RunTerms;
const claim = { run: RUN, round: 2, digest: DIGEST, terms };

async function logged(signers: number[], change: Partial<LogEntry> = {}): Promise<LogEntry> {
  const identities = await Promise.all([1, 2, 3, 4].map((n) => Identity.fromSeed(new Uint8Array(32).fill(n))));
  identities.sort((a, b) => (a.peerId < b.peerId ? -1 : 1));
  const entry = {
    run: RUN,
    round: 2,
    attempt: 1,
    round_id: toHex(await roundIdOf(RUN, 2, 1)),
    cohort: identities.map((identity) => identity.peerId),
    survivors: [0, 1, 2],
    previous_digest: "33".repeat(32),
    model_digest: DIGEST,
    metrics: new Uint8Array(8),
    signatures: [],
    seconds: 0.1,
    logged_at: 0,
    combining: null,
    ...change,
  } as unknown as LogEntry;
  const payload = resultPayload(entry.round_id, {
    modelDigest: fromHex(entry.model_digest),
    tailDigest: await sha256(entry.metrics),
    survivors: bitsOf(entry.survivors),
  });
  const signatures = await Promise.all(
    signers.map(async (index) => ({
      index,
      signature: await (identities[index] as Identity).sign(RESULT_LABEL, payload),
    })),
  );
  return { ...entry, signatures };
}

describe("a logged round", () => {
  it("counts with a quorum's signatures", async () => {
    await expect(checkEntry(await logged([0, 1, 3]), claim)).resolves.toBeUndefined();
  });

  it.each([
    ["with too few signers", [0, 1], {}],
    ["with one signer counted twice", [0, 0, 0], {}],
    ["of another run's round id", [0, 1, 2], { round_id: "44".repeat(32) }],
    ["of another model", [0, 1, 2], { model_digest: "55".repeat(32) }],
    ["over fewer survivors than the terms allow", [0, 1, 2], { survivors: [0, 1] }],
    ["of an attempt the terms do not allow", [0, 1, 2], { attempt: 9 }],
  ])("is refused %s", async (_, signers, change) => {
    await expect(checkEntry(await logged(signers, change as Partial<LogEntry>), claim)).rejects.toThrow(/run|model/);
  });

  it("is refused where a signature is another peer's", async () => {
    const entry = await logged([0, 1, 2]);
    const [first, second, third] = entry.signatures as unknown as [{ index: number; signature: Uint8Array }, { index: number; signature: Uint8Array }, { index: number; signature: Uint8Array }];
    const forged = { ...entry, signatures: [{ ...first, signature: second.signature }, second, third] } as unknown as LogEntry;
    await expect(checkEntry(forged, claim)).rejects.toThrow();
  });
});
