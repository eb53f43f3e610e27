import { describe, expect, it } from "vitest";
import { fromBase64, toBase64, toHex, utf8 } from "../src/protocol/bytes.js";
import { EncodingError, LimitExceededError, SignatureError, TermsError } from "../src/protocol/errors.js";
import { sealEnvelope, openEnvelope, PLAN_TYPE, RUN_TYPE } from "../src/protocol/envelope.js";
import { Identity } from "../src/protocol/identity.js";
import { JsonFraction, parseJson } from "../src/protocol/json.js";
import { decodeModelMessage, encodeModelMessage } from "../src/protocol/model-transfer.js";
import { boolean, decodeJson, integer, list, number, optional, record, text } from "../src/protocol/schema.js";
import { seal, SealingKey } from "../src/protocol/sealing.js";
import { audienceOf, decodeServerMessage } from "../src/protocol/signaling/messages.js";
import { FEDAVG } from "../src/protocol/server-optimizer.js";
import { decodeTerms } from "../src/protocol/terms.js";

const read = (source: string) => parseJson(source, "test", 1 << 20);

describe("strict JSON", () => {
  it("reads what JSON.parse reads, of values it may hold", () => {
    for (const source of ['{"a": [1, -2, true, null, "\\u00e9\\n\\ud83d\\ude00"]}', "[]", "{}", '"x"', "0", "-0"]) {
      expect(JSON.stringify(read(source))).toBe(JSON.stringify(JSON.parse(source)));
    }
  });

  it("tells a whole number from one with a fraction", () => {
    expect(read("1")).toBe(1);
    for (const source of ["1.0", "1e0", "10e-1"]) expect(read(source)).toEqual(new JsonFraction(1));
  });

  const REFUSED = [
    '{"a": 1, "a": 1}',
    "{} {}",
    "[1,]",
    "{'a': 1}",
    "01",
    "+1",
    "NaN",
    "1e999",
    "9007199254740993",
    '"\\ud800"',
    '"\\x"',
    '"a\tb"',
    '"open',
    "[".repeat(100),
    "",
    "\ufeff{}",
    "tru",
  ];
  for (const source of REFUSED) {
    it(`refuses ${JSON.stringify(source.slice(0, 20))}`, () => {
      expect(() => read(source)).toThrow(EncodingError);
    });
  }

  it("refuses bytes that are no UTF-8, and more bytes than allowed before it looks at them", () => {
    expect(() => parseJson(Uint8Array.of(0x22, 0xff, 0x22), "test", 10)).toThrow(EncodingError);
    expect(() => parseJson(new Uint8Array(11), "test", 10)).toThrow(LimitExceededError);
    expect(() => parseJson('"éééé"', "test", 9)).toThrow(LimitExceededError);
  });

  it("names in a document have no meaning to the language", () => {
    const value = read('{"__proto__": {"x": 1}, "constructor": 2}') as Record<string, unknown>;
    expect(Object.keys(value)).toEqual(["__proto__", "constructor"]);
    expect(({} as Record<string, unknown>)["x"]).toBeUndefined();
  });
});

describe("schemas", () => {
  const schema = record({ a: integer(0, 9), b: optional(list(text(2)), []), c: optional(number(), 1), d: optional(boolean, true) });
  const decode = (source: string) => decodeJson(source, schema, "thing", 1000);

  it("fills in what may be left out", () => {
    expect(decode('{"a": 1}')).toEqual({ a: 1, b: [], c: 1, d: true });
    expect(decode('{"a": 1, "c": 2.5}').c).toBe(2.5);
  });

  for (const source of ['{"a": 1.0}', '{"a": true}', '{"a": "1"}', '{"a": 10}', "{}", '{"a": 1, "z": 0}', '{"a": 1, "b": ["abc"]}', "[]", "null"]) {
    it(`refuses ${source}`, () => expect(() => decode(source)).toThrow(EncodingError));
  }
});

describe("base64", () => {
  it("round trips", () => {
    for (const size of [0, 1, 2, 3, 100_000]) {
      const data = Uint8Array.from({ length: size }, (_, i) => i);
      expect(fromBase64(toBase64(data), "test")).toEqual(data);
    }
  });
  for (const source of ["A", "AA", "AA=A", "AAAA=", "A A=", "AA-_", "\nAAAA", "e31=", "AB=="]) {
    it(`refuses ${JSON.stringify(source)}`, () => expect(() => fromBase64(source, "test")).toThrow(EncodingError));
  }
});

describe("identities and envelopes", () => {
  it("a plan is never taken for terms, and a changed payload never verifies", async () => {
    const identity = await Identity.generate();
    const sealed = await sealEnvelope(identity, PLAN_TYPE, utf8("{}"));
    expect((await openEnvelope(sealed, PLAN_TYPE, "plan")).signer).toBe(identity.peerId);
    await expect(openEnvelope(sealed, RUN_TYPE, "terms")).rejects.toThrow(SignatureError);
    const changed = utf8(new TextDecoder().decode(sealed).replace('"e30="', '"e30K"'));
    await expect(openEnvelope(changed, PLAN_TYPE, "plan")).rejects.toThrow(SignatureError);
  });

  it("text and JSON of an identity show eight digits of the public half", async () => {
    const identity = await Identity.fromSeed(new Uint8Array(32).fill(7));
    for (const shown of [String(identity), JSON.stringify({ identity })]) {
      expect(shown).toContain(identity.peerId.slice(0, 8));
      expect(shown).not.toMatch(/[0-9a-f]{9}/);
    }
  });
});

describe("sealed boxes", () => {
  it("open for the one they are for, from the one they are from, and for nobody else", async () => {
    const [from, to] = ["ab".repeat(32), "cd".repeat(32)];
    const key = await SealingKey.generate();
    const box = await seal(key.publicKey, { kind: "answer", payload: utf8("hello") }, from, to);
    expect(await key.open(box, from, to)).toEqual({ kind: "answer", payload: utf8("hello") });
    await expect(key.open(box, to, from)).rejects.toThrow(SignatureError);
    await expect((await SealingKey.generate()).open(box, from, to)).rejects.toThrow(SignatureError);
    await expect(key.open(box.slice(0, 48), from, to)).rejects.toThrow(EncodingError);
    box[40] = (box[40] as number) ^ 1;
    await expect(key.open(box, from, to)).rejects.toThrow(SignatureError);
  });

  it("a sealing key of small order is refused", async () => {
    const document = { kind: "offer", payload: utf8("x") } as const;
    await expect(seal(new Uint8Array(32), document, "ab".repeat(32), "cd".repeat(32))).rejects.toThrow(SignatureError);
  });
});

describe("other documents", () => {
  const terms = {
    name: "run",
    plan: "a".repeat(64),
    nonce: "b".repeat(64),
    rounds: 1,
    cohort_size: 64,
    min_cohort: 3,
    min_survivors: 3,
    ring_bits: 24,
    value_bits: 16,
    clip: 1.0,
    local: { batch_size: 1, learning_rate: 0.1 },
  };

  it("terms whose sums could overflow are refused, naming both sides", () => {
    expect(() => decodeTerms(utf8(JSON.stringify({ ...terms, ring_bits: 20 })))).toThrow(TermsError);
    expect(decodeTerms(utf8(JSON.stringify(terms))).retries).toBe(5);
  });

  it.each([
    ['{"kind":"fedsgd"}', "expected one of fedavg, fedavgm, fedadam, fedyogi"],
    ['{"kind":"fedadam","tau":0}', "tau: expected a number at least 1e-9, at most 1, got 0"],
    ['{"kind":"fedadam","tau":-0.001}', "tau: expected a number at least 1e-9, at most 1"],
    ['{"kind":"fedadam","tau":2}', "tau: expected a number at least 1e-9, at most 1"],
    ['{"kind":"fedadam","tau":NaN}', "run terms"],
    ['{"kind":"fedavgm","beta1":1}', "beta1: expected a number at least 0, below 1, got 1"],
    ['{"kind":"fedavgm","beta1":-0.1}', "beta1: expected a number at least 0, below 1"],
    ['{"kind":"fedyogi","beta2":1.0}', "beta2: expected a number at least 0, below 1"],
    ['{"kind":"fedavg","learning_rate":0}', "learning_rate: expected a number above 0, at most 1000, got 0"],
    ['{"kind":"fedavg","learning_rate":1001}', "learning_rate: expected a number above 0, at most 1000"],
    ['{"kind":"fedadam","epsilon":0.1}', "run terms"],
  ])("a server optimizer of %s is refused", (source, said) => {
    const text = JSON.stringify({ ...terms, server_optimizer: 0 }).replace('"server_optimizer":0', `"server_optimizer":${source}`);
    expect(() => decodeTerms(utf8(text))).toThrow(EncodingError);
    expect(() => decodeTerms(utf8(text))).toThrow(said);
  });

  it("terms without a server optimizer mean fedavg", () => {
    expect(decodeTerms(utf8(JSON.stringify(terms))).server_optimizer).toEqual(FEDAVG);
    const partly = { ...terms, server_optimizer: { kind: "fedadam" } };
    expect(decodeTerms(utf8(JSON.stringify(partly))).server_optimizer).toEqual({ ...FEDAVG, kind: "fedadam" });
  });

  it("model messages round trip and refuse what is too short", () => {
    const [run, digest] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];
    for (const message of [
      { type: "request", run, round: 3, digest },
      { type: "header", run, digest, total: 2 ** 40 },
      { type: "part", run, offset: 2 ** 40, payload: utf8("x") },
      { type: "refusal", run, digest },
    ] as const) {
      const data = encodeModelMessage(message);
      expect(decodeModelMessage(data)).toEqual(message);
      expect(() => decodeModelMessage(data.slice(0, 33))).toThrow(EncodingError);
    }
    expect(toHex(encodeModelMessage({ type: "refusal", run, digest })).slice(0, 6)).toBe("010401");
  });

  it("signaling messages are strict", () => {
    expect(decodeServerMessage('{"type": "done", "re": 1}')).toEqual({ type: "done", re: 1 });
    for (const source of ['{"type": "done", "re": 1, "x": 1}', '{"type": "toString"}', '{"re": 1}', '{"type": "done"}']) {
      expect(() => decodeServerMessage(source)).toThrow(EncodingError);
    }
  });

  it("the audience is the host and port that were dialled", () => {
    expect(audienceOf("ws://Example.org/x")).toBe("example.org:80");
    expect(audienceOf("wss://[::1]:8443")).toBe("[::1]:8443");
    for (const url of ["http://x", "example", "ws://"]) expect(() => audienceOf(url)).toThrow(EncodingError);
  });
});
