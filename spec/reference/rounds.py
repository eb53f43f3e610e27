"""Whole rounds among four peers in one process, with every secret and every message written down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from spec.reference import transcript
from spec.reference.apply import NewModel, signed
from spec.reference.messages import Decoded, chunk_ranges, decode
from spec.reference.packing import unpack
from spec.reference.peer import Peer
from spec.reference.scenarios import PEERS, Scenario, announce, draw_delegate, draw_secrets, draw_sum
from spec.reference.signatures import identity_key
from spec.reference.stream import Stream

__all__ = ["Log", "Play"]


@dataclass
class Log:
    """Messages in the order they were sent; `to` is "all" (the rest of the cohort) or one index."""

    sent: list[dict[str, Any]] = field(default_factory=list)

    def add(self, data: bytes, name: str, sender: int, to: int | str = "all") -> None:
        """Write one message down."""
        self.sent.append({"from": sender, "to": to, "type": name, "bytes": data.hex()})


class Play:
    """One scenario, stage by stage."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.log = Log()
        seeds = [Stream(f"identity/{i}").take(32) for i in range(PEERS)]
        seeds.sort(key=identity_key)
        self.announcement = announce(scenario, [identity_key(seed) for seed in seeds])
        p = self.announcement.parameters
        streams = [Stream(f"round/{scenario.name}/peer/{i}") for i in range(PEERS)]
        if scenario.sources:
            sums = [draw_sum(scenario, group) for group in scenario.sources]
            secrets = [draw_delegate(streams[i], seeds[i], sums[i], p.t) for i in range(PEERS)]
        else:
            secrets = [draw_secrets(streams[i], seeds[i], p.t) for i in range(PEERS)]
        self.peers = [Peer(self.announcement, i, secrets[i]) for i in range(PEERS)]
        self.leader = self.peers[transcript.leader(self.announcement.t0, 0, PEERS)]
        self.everyone = list(range(PEERS))
        self.stay = [i for i in self.everyone if i != scenario.gone]

    def lead(self, data: bytes, name: str) -> None:
        """Something the leader says to all."""
        self.log.add(data, name, self.leader.index)

    def tell_leader(self, sender: int, data: bytes, name: str) -> None:
        """Something one peer says to the leader; nothing is sent where it is the leader."""
        if sender != self.leader.index:
            self.log.add(data, name, sender, self.leader.index)

    def decide(self, kind: int, base: bytes, members: list[int], root: bytes) -> None:
        """DECIDE by the leader."""
        body = {"type": "decide", "kind": kind, "view": 0, "base": base.hex(), "set": members, "root": root.hex()}
        self.lead(self.leader.sign(body), "decide")

    def advertise(self) -> None:
        """R0: ADVERT by all, then the roster."""
        adverts = {i: self.peers[i].advert() for i in self.everyone}
        for i, data in adverts.items():
            self.log.add(data, "advert", i)
        for peer in self.peers:
            peer.adopt_roster(adverts)
        self.decide(1, self.announcement.t0, self.everyone, self.leader.t1)

    def share(self) -> list[int]:
        """Gives K."""
        senders = [i for i in self.everyone if self.scenario.sends(i, "shares")]
        context = self.announcement.context(PEERS)
        for f in senders:
            for g, data in self.peers[f].share_messages().items():
                self.log.add(data, "share", f, g)
                self.peers[g].take_share(f, decode(data, context)["box"])
        for i in senders:
            held = sorted(self.peers[i].held)
            self.tell_leader(i, self.peers[i].plain({"type": "ack", "view": 0, "held": held}), "ack")
        self.decide(2, self.leader.t1, senders, bytes(32))
        return senders

    def owners(self, j: int) -> list[int]:
        """Owners of chunk j before any ASSIGN."""
        masked = self.leader.masked
        count = self.announcement.parameters.replicas
        return [masked[(j + more) % len(masked)] for more in range(count)]

    def send_chunk(self, u: int, j: int, owner: int) -> None:
        """CHUNK from u to an owner."""
        if u != owner:
            self.log.add(self.peers[u].chunk_message(j), "chunk", u, owner)
            self.peers[owner].received[j, u] = self.peers[u].chunks[j]

    def mask(self, masked: list[int]) -> dict[int, bytes]:
        """Gives the COMMIT of every peer of K."""
        commits = {i: self.peers[i].mask(masked) for i in masked}
        for i in masked:
            if self.scenario.sends(i, "first chunk"):
                self.log.add(commits[i], "commit", i)
        for i in masked:
            for j in range(len(self.leader.chunks)):
                if self.scenario.sends(i, "chunks") or (j == 0 and self.scenario.sends(i, "first chunk")):
                    for owner in self.owners(j):
                        self.send_chunk(i, j, owner)
        return commits

    def report_have(self, present: list[int], commits: list[int]) -> None:
        """HAVE by every peer of `present`."""
        for i in present:
            mine = self.owned.get(i, [])
            chunks = [
                {"chunk": j, "contributors": sorted(u for (c, u) in self.peers[i].received if c == j)} for j in mine
            ]
            body = {"type": "have", "view": 0, "commits": commits, "chunks": chunks}
            self.tell_leader(i, self.peers[i].plain(body), "have")

    def agree(self, commits: dict[int, bytes]) -> list[int]:
        """HAVE, ASSIGN where an owner is gone, DECIDE, VOTE and CERTIFICATE. Gives U."""
        masked = self.leader.masked
        present = [i for i in masked if self.scenario.sends(i, "vote")]
        chunks = range(len(self.leader.chunks))
        self.owned = {i: [j for j in chunks if i in self.owners(j)] for i in masked}
        self.report_have(present, sorted(commits))
        for j in chunks:
            if not set(self.owners(j)) & set(present):
                self.assign(j, present)
        survivors = [
            u
            for u in masked
            if all(any((j, u) in self.peers[i].received for i in present if j in self.owned[i]) for j in chunks)
        ]
        root = transcript.commit_root(self.leader.t2, {u: commits[u] for u in survivors})
        self.decide(3, self.leader.t2, survivors, root)
        votes = {i: self.peers[i].vote(survivors, commits) for i in present}
        for i, vote in votes.items():
            self.tell_leader(i, vote, "vote")
        certificate = {"type": "certificate", "t2": self.leader.t2.hex(), "survivors": survivors, "root": root.hex()}
        certificate |= {"voters": present, "signatures": [votes[i][-64:].hex() for i in present]}
        self.lead(self.leader.plain(certificate), "certificate")
        return survivors

    def assign(self, j: int, present: list[int]) -> None:
        """ASSIGN a chunk whose owners are gone to the first live peer of K after them, and send it again."""
        masked = self.leader.masked
        at = masked.index(self.owners(j)[-1])
        owner = next(i for i in masked[at + 1 :] + masked[:at] if i in present)
        self.lead(self.leader.plain({"type": "assign", "view": 0, "chunk": j, "owner": owner}), "assign")
        self.owned[owner].append(j)
        for u in present:
            self.send_chunk(u, j, owner)
        self.report_have([owner], sorted(self.leader.masked))

    def unmask(self, survivors: list[int]) -> dict[int, Decoded]:
        """R4: REVEAL by all that are left, decoded, by index."""
        present = [i for i in self.leader.masked if i in self.stay]
        gone = [i for i in self.leader.masked if i not in self.stay]
        reveals = {i: self.peers[i].reveal(survivors, gone) for i in present}
        for i, data in reveals.items():
            self.log.add(data, "reveal", i)
        context = self.announcement.context(len(self.leader.masked))
        return {i: decode(data, context) for i, data in reveals.items()}

    def sum(self, survivors: list[int], reveals: dict[int, Decoded]) -> dict[int, bytes]:
        """Packed sums by chunk; DECIDE(lost) for those nobody can sum."""
        context = self.announcement.context(len(self.leader.masked))
        sums: dict[int, bytes] = {}
        for i in reveals:
            for j in self.owned[i]:
                data = self.peers[i].sum_chunk(j, survivors, reveals)
                self.log.add(data, "sum", i)
                packed = bytes.fromhex(decode(data, context)["packed"])
                if sums.setdefault(j, packed) != packed:
                    raise AssertionError(f"{self.scenario.name}: two sums of chunk {j} differ")
        lost = [j for j in range(len(self.leader.chunks)) if j not in sums]
        if lost:
            self.decide(4, self.leader.t3, lost, bytes(32))
        return sums

    def aggregate(self, sums: dict[int, bytes]) -> list[int]:
        """Signed sums of every coordinate, padding included; a lost chunk counts zero."""
        p = self.announcement.parameters
        values: list[int] = []
        for j, (start, end) in enumerate(chunk_ranges(p.elements, len(self.leader.masked))):
            values += unpack(sums[j], end - start, p.ring_bits) if j in sums else [0] * (end - start)
        return [signed(value, p.ring_bits) for value in values]

    def check(self, survivors: list[int], sums: dict[int, bytes]) -> None:
        """The aggregate is the plain sum of what the survivors quantised, but for lost chunks."""
        plain = [sum(column) for column in zip(*(self.peers[u].quantised() for u in survivors), strict=True)]
        found = self.aggregate(sums)
        for j, (start, end) in enumerate(chunk_ranges(len(plain), len(self.leader.masked))):
            if j in sums and found[start:end] != (plain[start:end] + [0] * 8)[: end - start]:
                raise AssertionError(f"{self.scenario.name}: the aggregate of chunk {j} is not the plain sum")

    def finish(self, sums: dict[int, bytes], survivors: list[int]) -> NewModel:
        """RESULT of every peer that is left; all have the same model."""
        models = []
        for i in self.leader.masked:
            if i in self.stay:
                new, result = self.peers[i].finish(sums, survivors)
                self.log.add(result, "result", i)
                models.append(new)
        if any(model != models[0] for model in models):
            raise AssertionError(f"{self.scenario.name}: two peers end with different models")
        return models[0]

    def run(self) -> dict[str, Any]:
        """The whole round; what all can see of it."""
        self.advertise()
        commits = self.mask(self.share())
        survivors = self.agree(commits)
        sums = self.sum(survivors, self.unmask(survivors))
        self.check(survivors, sums)
        new = self.finish(sums, survivors)
        return {
            "round_id": self.announcement.round_id.hex(),
            "t0": self.announcement.t0.hex(),
            "leader": self.leader.index,
            "t1": self.leader.t1.hex(),
            "masked": self.leader.masked,
            "t2": self.leader.t2.hex(),
            "chunks": [list(r) for r in chunk_ranges(self.announcement.parameters.elements, len(self.leader.masked))],
            "survivors": survivors,
            "t3": self.leader.t3.hex(),
            "lost": [j for j in range(len(self.leader.chunks)) if j not in sums],
            "aggregate": self.aggregate(sums)[: self.announcement.parameters.elements],
            "theta": new.theta.hex(),
            "buffers": new.buffers.hex(),
            "tail": new.tail,
            "tail_digest": new.tail_digest.hex(),
            "model_digest": new.model_digest.hex(),
            "messages": self.log.sent,
        }
