"""One peer of a written-down round, given its secrets and all it heard: what does it send?"""

from __future__ import annotations

from typing import Any

from spec.reference import quantise
from spec.reference.codec import H
from spec.reference.messages import Decoded, decode
from spec.reference.ops import parameters_of, raw
from spec.reference.peer import Announcement, Peer, Secrets
from spec.reference.refused import Refused

__all__ = ["replay"]

Json = dict[str, Any]


def _announcement(g: Json) -> Announcement:
    theta, buffers = raw(g["theta"]), raw(g["buffers"])
    if H(theta, buffers).hex() != g["model_digest"]:
        raise Refused("model", "06 §3", "the model held is not the one announced")
    parameters, plan = parameters_of(g["parameters"]), raw(g["plan_digest"])
    place = (g["place"]["level"], g["place"]["group"]) if "place" in g else None
    return Announcement(parameters, g["round"], g["attempt"], plan, theta, buffers, g["max_examples"], place)


def _secrets(g: Json) -> Secrets:
    names = ("identity_seed", "fingerprint", "mask_private", "enc_private", "seed", "coefficients")
    drawn: dict[str, Any] = {name: raw(g[name]) for name in names}
    if "group_sum" in g:
        return Secrets(group_sum=g["group_sum"], **drawn)
    groups = [quantise.Metrics(x["weight"], x["means"], x["bounds"]) for x in g["groups"]]
    return Secrets(update=raw(g["update"]), groups=groups, randoms=g["randoms"], **drawn)


class Replay:
    """Everything heard, sorted; everything sent, in `outbox`."""

    def __init__(self, given: Json) -> None:
        self.announcement = _announcement(given["announcement"])
        self.peer = Peer(self.announcement, given["peer"]["index"], _secrets(given["peer"]))
        self.inbox = [raw(data) for data in given["inbox"]]
        self.gone: list[int] = given["gone"]
        self.outbox: list[Json] = []

    def send(self, data: bytes, kind: str, to: int | str = "all") -> bytes:
        """Note one message; gives it back."""
        self.outbox.append({"to": to, "type": kind, "bytes": data.hex()})
        return data

    def whole(self, kind: int) -> dict[int, bytes]:
        """Whole messages of a type by sender."""
        return {data[2]: data for data in self.inbox if data[1] == kind}

    def heard(self, kind: int, masked: int) -> list[Decoded]:
        """Decoded messages of a type."""
        context = self.announcement.context(masked)
        return [decode(data, context) for data in self.inbox if data[1] == kind]

    def decided(self, kind: int, masked: int) -> Decoded:
        """The DECIDE of a kind."""
        return next(d for d in self.heard(2, masked) if d["kind"] == kind)

    def run(self) -> Json:
        """The outbox and the model it ends with."""
        me, peers = self.peer.index, self.announcement.parameters.n
        adverts = self.whole(1) | {me: self.send(self.peer.advert(), "advert")}
        self.peer.adopt_roster({i: adverts[i] for i in self.decided(1, peers)["set"]})
        for to, data in self.peer.share_messages().items():
            self.send(data, "share", to)
        for share in self.heard(3, peers):
            self.peer.take_share(share["sender"], share["box"])
        masked = self.decided(2, peers)["set"]
        own_commit = self.send(self.peer.mask(masked), "commit")
        owned = self._exchange(masked)
        decision = self.decided(3, len(masked))
        vote = self.peer.vote(decision["set"], self.whole(5) | {me: own_commit})
        if me != decision["sender"]:
            self.send(vote, "vote", decision["sender"])
        return self._unmask(masked, decision["set"], owned)

    def _exchange(self, masked: list[int]) -> list[int]:
        """Send every CHUNK, again where it is ASSIGNed; gives the chunks this peer owns."""
        me, replicas = self.peer.index, self.announcement.parameters.replicas
        owners = [
            [masked[(j + more) % len(masked)] for more in range(replicas)] for j in range(len(self.peer.chunks))
        ]
        for assigned in self.heard(14, len(masked)):
            owners[assigned["chunk"]].append(assigned["owner"])
        for j, of_chunk in enumerate(owners):
            for owner in of_chunk:
                if owner != me:
                    self.send(self.peer.chunk_message(j), "chunk", owner)
        for chunk in self.heard(32, len(masked)):
            self.peer.received[chunk["chunk"], chunk["sender"]] = raw(chunk["packed"])
        return [j for j, of_chunk in enumerate(owners) if me in of_chunk]

    def _unmask(self, masked: list[int], survivors: list[int], owned: list[int]) -> Json:
        me = self.peer.index
        own = self.send(self.peer.reveal(survivors, self.gone), "reveal")
        reveals = {m["sender"]: m for m in self.heard(9, len(masked))}
        reveals[me] = decode(own, self.announcement.context(len(masked)))
        for j in owned:
            self.inbox.append(self.send(self.peer.sum_chunk(j, survivors, reveals), "sum"))
        sums = {m["chunk"]: raw(m["packed"]) for m in self.heard(33, len(masked))}
        new, result = self.peer.finish(sums, survivors)
        self.send(result, "result")
        return {"outbox": self.outbox, "theta": new.theta.hex(), "buffers": new.buffers.hex()}


def replay(given: Json) -> Json:
    """All that the peer sends, but for what depends on timing: ACK, HAVE and the leader's own messages."""
    return Replay(given).run()
