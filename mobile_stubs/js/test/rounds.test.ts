import { describe, expect, it } from "vitest";
import { bitsOf, indexesOf } from "../src/protocol/bits.js";
import { TYPE_NUMBERS } from "../src/round/messages.js";
import { Stage } from "../src/round/state.js";
import { Network, type TestPeer } from "./network.js";

const typeOf = (data: Uint8Array) => data[1];

function models(peers: readonly TestPeer[]): Set<string> {
  return new Set(peers.filter((peer) => !peer.isGone).map((peer) => peer.model?.join() ?? "none"));
}

describe("a round", () => {
  for (const [size, ringBits, replicas] of [[3, 16, 1], [5, 20, 2], [7, 24, 1], [4, 32, 2]] as const) {
    it(`of ${size} peers in a ring of ${ringBits} bits gives everyone the plain mean`, async () => {
      const network = await Network.of(size, { ringBits, replicas });
      await network.begin();
      await network.play();
      expect(network.peers.map((peer) => peer.end?.action)).toEqual(Array(size).fill("completed"));
      expect(models(network.peers).size).toBe(1);
      const tolerance = ringBits === 16 ? 1e-3 : 1e-4;
      const wanted = network.expected(network.peers.map((peer) => peer.index));
      network.peers[0]?.model?.forEach((v, i) => expect(Math.abs(v - (wanted[i] as number))).toBeLessThan(tolerance));
      expect(network.peers.flatMap((peer) => peer.faults)).toEqual([]);
    });
  }

  for (const type of ["advert", "share", "commit", "vote", "reveal"] as const) {
    it(`survives a peer that vanishes after its first ${type}`, async () => {
      const network = await Network.of(5);
      const victim = network.peers.find((peer) => peer.index !== peer.machine.leader) as TestPeer;
      let isDue = false;
      network.onMail = (mail) => {
        if (mail.from === victim.index && typeOf(mail.data) === TYPE_NUMBERS[type]) isDue = true;
        return mail;
      };
      await network.begin();
      while (network.peers.some((peer) => !peer.isGone && peer.end === null)) {
        if (isDue && !victim.isGone) await network.lose(victim.index);
        const mail = network.mail.shift();
        if (mail === undefined) await network.play();
        else await network.deliver(mail);
      }
      const others = network.peers.filter((peer) => peer !== victim);
      expect(others.map((peer) => peer.end?.action)).toEqual(Array(4).fill("completed"));
      expect(models(others).size).toBe(1);
      const end = others[0]?.end;
      if (end?.action !== "completed") throw new Error("no survivors");
      const survivors = indexesOf(end.survivors);
      if (type !== "reveal" && type !== "vote") expect(survivors).not.toContain(victim.index);
    });
  }

  it("survives its leader: the next one carries on", async () => {
    const network = await Network.of(5);
    await network.begin();
    const leader = network.peers[0]?.machine.leader as number;
    await network.lose(leader);
    await network.play();
    const others = network.peers.filter((peer) => peer.index !== leader);
    expect(others.map((peer) => peer.end?.action)).toEqual(Array(4).fill("completed"));
    expect(models(others).size).toBe(1);
  });

  for (const stage of ["unmask", "sum"]) {
    it(`survives a leader that says nothing more from stage ${stage} on, but keeps its links`, async () => {
      const network = await Network.of(7);
      const leader = network.peers[0]?.machine.leader as number;
      network.onMail = (mail) => (mail.from === leader && network.peers[leader]?.stages.includes(stage) ? null : mail);
      await network.begin();
      await network.play();
      const others = network.peers.filter((peer) => peer.index !== leader);
      expect(others.map((peer) => peer.end?.action)).toEqual(Array(6).fill("completed"));
      expect(others.map((peer) => peer.machine.view)).toEqual(Array(6).fill(1));
    });
  }

  for (const stage of ["advertise", "share", "collect", "unmask", "sum"]) {
    it(`survives any one peer that says nothing more from stage ${stage} on, but keeps its links`, async () => {
      for (let silent = 0; silent < 4; silent++) {
        const network = await Network.of(4, { length: 14 });
        network.onMail = (mail) => (mail.from === silent && network.peers[silent]?.stages.includes(stage) ? null : mail);
        await network.begin();
        await network.play();
        const others = network.peers.filter((peer) => peer.index !== silent);
        expect(others.map((peer) => peer.end?.action)).toEqual(Array(3).fill("completed"));
        expect(models(others).size).toBe(1);
      }
    });
  }

  it("goes on with a peer that shows some another certificate than the one it advertised, without that link", async () => {
    const network = await Network.of(7);
    const leader = network.peers[0]?.machine.leader as number;
    const liar = (leader + 1) % 7;
    const victims = [2, 4, 5].map((step) => (leader + step) % 7);
    network.onMail = ({ from, to, ...mail }) =>
      (from === liar && victims.includes(to)) || (to === liar && victims.includes(from)) ? null : { from, to, ...mail };
    await network.begin();
    for (const victim of victims) await network.showAnother(victim, liar);
    await network.play();
    const honest = network.peers.filter((peer) => peer.index !== liar);
    expect(honest.map((peer) => peer.end?.action)).toEqual(Array(6).fill("completed"));
    expect(models(honest).size).toBe(1);
  });

  it("is whole for everyone where the leader gives the certificate to some: the others ask those", async () => {
    const network = await Network.of(10);
    const leader = network.peers[0]?.machine.leader as number;
    const served = new Set([1, 2, 3].map((step) => (leader + step) % 10));
    const certificate = 8;
    network.onMail = (mail) => {
      if (mail.from !== leader) return mail;
      if (mail.data[1] === certificate) return served.has(mail.to) ? mail : null;
      return network.peers[leader]?.stages.includes("unmask") ? null : mail;
    };
    await network.begin();
    await network.play();
    const others = network.peers.filter((peer) => peer.index !== leader);
    expect(others.map((peer) => peer.end?.action)).toEqual(Array(9).fill("completed"));
    expect(models(others).size).toBe(1);
  });

  it("is whole for everyone where an owner sends its sum to some: the others ask those", async () => {
    const network = await Network.of(10);
    const leader = network.peers[0]?.machine.leader as number;
    const liar = (leader + 1) % 10;
    const isServed = (peer: number) => [leader, (leader + 2) % 10, (leader + 3) % 10].includes(peer);
    const [result, forward, sum] = [10, 12, 33];
    network.onMail = (mail) =>
      mail.from === liar && !isServed(mail.to) && [result, forward, sum].includes(mail.data[1] as number) ? null : mail;
    await network.begin();
    await network.play();
    const honest = network.peers.filter((peer) => peer.index !== liar);
    expect(honest.map((peer) => peer.end?.action)).toEqual(Array(9).fill("completed"));
    expect(models(honest).size).toBe(1);
  });

  for (const type of ["vote", "result"] as const) {
    it(`counts a ${type} that another peer passes on`, async () => {
      const network = await Network.of(5);
      let passed = 0;
      network.onMail = (mail) => {
        if (typeOf(mail.data) !== TYPE_NUMBERS[type]) return mail;
        const by = network.peers.findIndex(({ index }) => index !== mail.from && index !== mail.to);
        const head = [1, TYPE_NUMBERS.forward, by, 0, ...mail.data.slice(4, 12), mail.data.length, 0];
        passed++;
        return { ...mail, from: by, data: Uint8Array.from([...head, ...mail.data]) };
      };
      await network.begin();
      await network.play();
      expect(passed).toBeGreaterThanOrEqual(4);
      expect(network.peers.map((peer) => peer.end?.action)).toEqual(Array(5).fill("completed"));
      expect(network.peers.flatMap((peer) => peer.faults)).toEqual([]);
    });
  }

  it("fails, with a reason, where too few peers are left", async () => {
    const network = await Network.of(4);
    await network.begin();
    await network.lose(0);
    await network.lose(1);
    await network.play();
    for (const peer of network.peers.slice(2)) {
      expect(peer.end?.action).toBe("failed");
      expect(peer.model).toBeNull();
    }
  });
});

describe("secrets", () => {
  it("no peer ever reveals both secrets of another, and no masked update equals a plain one", async () => {
    const network = await Network.of(5);
    const revealed = new Map<string, Set<number>>();
    await network.begin();
    await network.play();
    for (const peer of network.peers) {
      for (const line of peer.journal.filter((entry) => entry.startsWith("revealed "))) {
        for (const item of line.slice("revealed ".length).split(",")) {
          const [about, kind] = item.split(":").map(Number) as [number, number];
          const name = `${peer.index} ${about}`;
          revealed.set(name, (revealed.get(name) ?? new Set()).add(kind));
        }
      }
    }
    expect([...revealed.values()].every((kinds) => kinds.size === 1)).toBe(true);
    expect(revealed.size).toBe(5); // with nobody gone, each tells its own seed and nothing about others
  });

  it("each peer votes once, and writes it down before it votes", async () => {
    const network = await Network.of(4);
    const voted = new Set<number>();
    network.onMail = (mail) => {
      if (typeOf(mail.data) === TYPE_NUMBERS.vote) {
        const peer = network.peers[mail.from] as TestPeer;
        expect(peer.journal.filter((entry) => entry.startsWith("voted "))).toHaveLength(1);
        voted.add(mail.from);
      }
      return mail;
    };
    await network.begin();
    await network.play();
    expect(voted.size).toBe(3); // the leader sends itself nothing
  });
});

describe("hostile messages", () => {
  it("random bytes are refused, named, and change nothing", async () => {
    const network = await Network.of(4);
    await network.begin();
    const target = network.peers[0] as TestPeer;
    for (let size = 0; size < 200; size++) {
      await network.deliver({ from: 1, to: 0, data: new Uint8Array(size).map((_, i) => (i * 31 + size) & 255), bulk: size % 2 === 0 });
    }
    expect(target.faults).toHaveLength(200);
    await network.play();
    expect(models(network.peers).size).toBe(1);
  });

  it("a message with one bit flipped never gets through as another peer's", async () => {
    const network = await Network.of(4);
    network.onMail = (mail) => {
      const copy = mail.data.slice();
      copy[2] = (mail.from + 1) % 4;
      network.mail.push({ ...mail, data: copy });
      return mail;
    };
    await network.begin();
    await network.play();
    expect(network.peers.every((peer) => peer.end?.action === "completed")).toBe(true);
    expect(network.peers.flatMap((peer) => peer.faults).length).toBeGreaterThan(0);
  });

  it("a sum in the name of the one who gets it is not believed", async () => {
    const network = await Network.of(4);
    let forged = 0;
    network.onMail = (mail) => {
      if (typeOf(mail.data) === TYPE_NUMBERS.sum && mail.from !== mail.to) {
        const copy = mail.data.slice();
        copy[2] = mail.to;
        copy[copy.length - 1] = (copy[copy.length - 1] as number) ^ 1;
        network.mail.unshift({ ...mail, data: copy });
        forged++;
      }
      return mail;
    };
    await network.begin();
    await network.play();
    expect(forged).toBeGreaterThan(0);
    expect(network.peers.map((peer) => peer.end?.action)).toEqual(Array(4).fill("completed"));
    expect(models(network.peers).size).toBe(1);
  });

  it("a peer whose training diverged sends nothing of it", async () => {
    const network = await Network.of(3);
    const diverged = network.peers[0] as TestPeer;
    diverged.update.values.fill(Number.NaN);
    await network.begin();
    await network.play();
    expect(diverged.end).toMatchObject({ action: "failed", reason: expect.stringContaining("NaN") });
    expect(diverged.journal.some((entry) => entry.startsWith("committed"))).toBe(false);
  });
});

it("a failed machine says so once, to everybody, and forgets", async () => {
  const network = await Network.of(3);
  await network.begin();
  const machine = (network.peers[0] as TestPeer).machine;
  const actions = await machine.fail("the owner said stop", 0);
  expect(actions.filter((action) => action.action === "send")).toHaveLength(2);
  expect(machine.stage).toBe(Stage.FAILED);
  expect(await machine.fail("again", 0)).toEqual([]);
  expect(JSON.stringify(machine)).not.toMatch(/[0-9a-f]{16}/);
  expect(bitsOf([0, 2])).toBe(5n);
});
