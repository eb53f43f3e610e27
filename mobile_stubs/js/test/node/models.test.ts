/** Models served to many peers at once, over a mesh that only notes what is sent. */

import { describe, expect, it } from "vitest";
import type { Mesh } from "../../src/node/mesh.js";
import { ModelExchange } from "../../src/node/models.js";
import type { Bytes } from "../../src/protocol/bytes.js";
import type { PeerId } from "../../src/protocol/identity.js";
import type { Kind } from "../../src/protocol/link/framing.js";
import { decodeModelMessage, encodeModelMessage } from "../../src/protocol/model-transfer.js";

const AT_ONCE = 4;

describe("serving models", () => {
  it("forgets the peers that it refused while it served as many as it may", async () => {
    const sent: [PeerId, string][] = [];
    let tell = () => {};
    const mesh = {
      send: (peer: PeerId, _kind: Kind, payload: Bytes) => {
        sent.push([peer, decodeModelMessage(payload).type]);
        tell();
      },
      drain: () => Promise.resolve(),
    };
    const until = async (condition: () => boolean) => {
      while (!condition()) await new Promise<void>((resolve) => (tell = resolve));
    };
    let open = () => {};
    const opened = new Promise<Bytes>((resolve) => (open = () => resolve(new Uint8Array(8))));
    const models = new ModelExchange(mesh as unknown as Mesh, () => opened, () => {});
    const request = encodeModelMessage({ type: "request", run: new Uint8Array(32), round: 1, digest: new Uint8Array(32) });
    const peers = Array.from({ length: 2 * AT_ONCE }, (_, i) => String(i));
    for (const peer of peers) models.receive(peer, request);
    await until(() => sent.length === AT_ONCE);
    expect(sent).toEqual(peers.slice(AT_ONCE).map((peer) => [peer, "refusal"]));

    open();
    await until(() => sent.filter(([, type]) => type === "part").length === AT_ONCE);
    await new Promise(setImmediate);
    for (const peer of peers.slice(AT_ONCE)) models.receive(peer, request);
    const firsts = () => sent.slice(3 * AT_ONCE).filter(([, type]) => type !== "part");
    await until(() => firsts().length === AT_ONCE);
    expect(firsts()).toEqual(peers.slice(AT_ONCE).map((peer) => [peer, "header"]));
  });
});
