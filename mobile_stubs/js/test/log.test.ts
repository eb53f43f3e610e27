import { describe, expect, it } from "vitest";
import { Identity } from "../src/protocol/identity.js";
import { bitsOf } from "../src/protocol/bits.js";
import { fromHex, toHex } from "../src/protocol/bytes.js";
import { sha256 } from "../src/protocol/crypto.js";
import type { LogEntry } from "../src/protocol/signaling/messages.js";
import type { RunTerms } from "../src/protocol/terms.js";
import { RESULT_LABEL, resultPayload } from "../src/round/codec.js";
import { cohortRoundIdOf } from "../src/secagg/combining.js";
import { roundIdOf } from "../src/secagg/parameters.js";
import { checkEntry } from "../src/node/log-checking.js";

const RUN = "11".repeat(32);
const DIGEST = "22".repeat(32);
const terms = { rounds: 3, retries: 1, min_cohort: 4, cohort_size: 5, min_survivors: 3, cohorts: 1, members: [] } as unknown as RunTerms;
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

describe("a logged round of many cohorts", () => {
  const many = { ...claim, terms: { ...terms, min_cohort: 3, cohorts: 3 } };
  const groups = [0, 2].map((group) => ({ group, members: 5, survivors: 4 }));
  const combining = { sources: [0, 0, 2, 2], multiplicity: 5, groups };

  async function byDelegates(signers: number[], change: Partial<LogEntry> = {}): Promise<LogEntry> {
    const round_id = await cohortRoundIdOf(RUN, 2, 1, { level: 2, group: 0 });
    return logged(signers, { round_id, combining, ...change });
  }

  it("counts with a quorum of its delegates, whose number no term bounds", async () => {
    await expect(checkEntry(await byDelegates([0, 1, 3]), many)).resolves.toBeUndefined();
    const strict = { ...many, terms: { ...many.terms, min_survivors: 4 } };
    await expect(checkEntry(await byDelegates([0, 1, 3]), strict)).resolves.toBeUndefined();
  });

  it.each<[string, Partial<LogEntry>, RegExp]>([
    ["with a plain round's id", { round_id: "" }, /another round's/],
    ["without groups", { combining: null }, /another round's/],
    ["with a source too few", { combining: { ...combining, sources: [0, 0, 2] } }, /4 delegates of groups 0, 2/],
    ["with a group beyond the terms", { combining: { ...combining, sources: [0, 0, 3, 3], groups: [groups[0]!, { ...groups[1]!, group: 3 }] } }, /of groups 0, 3, terms say 3/],
    ["with a group twice", { combining: { ...combining, groups: [groups[0]!, groups[0]!, groups[1]!] } }, /of groups 0, 2/],
    ["with a group nobody speaks for", { combining: { ...combining, sources: [0, 0, 0, 0] } }, /of groups 0, 2/],
    ["with a source of no group", { combining: { ...combining, sources: [0, 0, 2, 1] } }, /of groups 0, 2/],
    ["with three delegates of one group", { combining: { ...combining, sources: [0, 0, 0, 2] } }, /one delegate or two/],
    ["with more peers than a cohort may have", { combining: { ...combining, groups: [groups[0]!, { ...groups[1]!, members: 6 }] } }, /of 3 to 5 peers/],
    ["with fewer survivors than a group needs", { combining: { ...combining, groups: [groups[0]!, { ...groups[1]!, survivors: 3 }] } }, /of groups 0, 2/],
    ["over fewer delegates than a quorum", { survivors: [0, 1] }, /over 2 peers, expected 3/],
    ["over delegates that there are not", { survivors: [0, 1, 2, 9] }, /beyond its cohort of 4/],
  ])("is refused %s", async (_, change, words) => {
    const round_id = change.round_id === "" ? { round_id: toHex(await roundIdOf(RUN, 2, 1)) } : {};
    await expect(checkEntry(await byDelegates([0, 1, 2], { ...change, ...round_id }), many)).rejects.toThrow(words);
  });

  it("is refused where the terms allow one cohort", async () => {
    const one = { ...many, terms: { ...many.terms, cohorts: 1 } };
    await expect(checkEntry(await byDelegates([0, 1, 2]), one)).rejects.toThrow(/terms say 1 cohorts/);
  });

  it("is refused with too few signers", async () => {
    await expect(checkEntry(await byDelegates([0, 1]), many)).rejects.toThrow(/2 peers signed, expected 3/);
  });
});
