import { describe, expect, it } from "vitest";
import { utf8 } from "../src/protocol/bytes.js";
import { EncodingError, ManifestError } from "../src/protocol/errors.js";
import { decodeManifest, vectorSize } from "../src/protocol/manifest.js";

const digest = (letter: string) => letter.repeat(64);

/** A manifest of a body of six parameters and a head of three. */
function source(changes: object): string {
  return JSON.stringify({
    name: "personal",
    version: "1",
    opset: 18,
    inputs: [],
    targets: [],
    parameters: [
      { name: "body", shape: [2, 3], offset: 0 },
      { name: "head", shape: [3], offset: 6 },
    ],
    parameter_count: 9,
    optimizer_count: 0,
    buffer_count: 0,
    local_count: 3,
    metrics: [{ name: "loss", bound: 1 }],
    training: null,
    functions: {},
    initial: { theta: digest("a"), local: digest("b") },
    blobs: [
      { digest: digest("a"), size: 24, role: "theta" },
      { digest: digest("b"), size: 12, role: "local" },
    ],
    ...changes,
  });
}

describe("local parameters in a manifest", () => {
  it("are the end of theta, with initial values of their own", () => {
    const manifest = decodeManifest(utf8(source({})));
    expect([vectorSize(manifest, "theta"), vectorSize(manifest, "local")]).toEqual([6, 3]);
    expect(decodeManifest(utf8(source({ local_count: 0, initial: {} }))).local_count).toBe(0);
  });

  it.each([
    ["part of a tensor", { local_count: 2 }, ManifestError],
    ["all of theta", { local_count: 9, initial: {} }, ManifestError],
    ["more than theta", { local_count: 10, initial: {} }, ManifestError],
    ["a negative number", { local_count: -3 }, EncodingError],
    ["a number without bound", { local_count: 2 ** 26 + 1 }, EncodingError],
    ["initial values of another size", { initial: { local: digest("a") } }, ManifestError],
  ])("%s is refused", (_what, changes, error) => {
    expect(() => decodeManifest(utf8(source(changes)))).toThrow(error);
  });
});
