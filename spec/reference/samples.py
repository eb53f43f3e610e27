"""One good message of every type, taken from the written-down rounds or built beside them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from spec.reference.codec import H
from spec.reference.messages import TYPES
from spec.reference.output import Case
from spec.reference.rounds import Play
from spec.reference.scenarios import SCENARIOS

__all__ = ["Sampled", "sampled"]


@dataclass(frozen=True)
class Sampled:
    """A played round, its context as vectors write it, and `messages[type]` in the order they were sent."""

    play: Play
    output: dict[str, Any]
    context: Case
    messages: dict[str, list[bytes]]

    @property
    def identities(self) -> list[bytes]:
        """The cohort's identity keys."""
        return self.play.announcement.parameters.cohort

    def seed(self, index: int) -> bytes:
        """Secret identity seed of one peer."""
        return self.play.peers[index].secrets.identity_seed


@cache
def sampled(name: str) -> Sampled:
    """The scenario of that name; messages the scenario does not send are added."""
    play = Play(next(scenario for scenario in SCENARIOS if scenario.name == name))
    output = play.run()
    a = play.announcement
    context = {
        "peers": a.parameters.n,
        "round_id": a.round_id.hex(),
        "ring_bits": a.parameters.ring_bits,
        "elements": a.parameters.elements,
        "masked": len(output["masked"]),
    }
    found: dict[str, list[bytes]] = {kind: [] for kind in TYPES}
    for message in output["messages"]:
        found[message["type"]].append(bytes.fromhex(message["bytes"]))
    peer = play.peers[0]
    decisions = [data.hex() for data in found["decide"][:2]]
    found["status"] += [
        peer.plain({"type": "status", "view": 1, "decisions": decisions}),
        peer.plain({"type": "status", "view": 3, "decisions": []}),
    ]
    for kind in ("advert", "commit", "decide", "vote", "result"):
        found["forward"].append(peer.plain({"type": "forward", "message": found[kind][0].hex()}))
    for what, members in ((1, [3]), (2, [0, 2]), (3, [1]), (4, [])):
        found["need"].append(peer.plain({"type": "need", "what": what, "set": members}))
    lost = {"type": "decide", "kind": 4, "view": 2, "base": play.leader.t3.hex(), "set": [0, 2]}
    found["decide"].append(play.leader.sign(lost | {"root": bytes(32).hex()}))
    found["assign"].append(play.leader.plain({"type": "assign", "view": 1, "chunk": 2, "owner": 3}))
    found["abort"].append(peer.plain({"type": "abort", "reason": 1}))
    share = {"about": 3, "kind": "b", "share": H(b"share").hex()}
    found["reveal"].append(peer.plain({"type": "reveal", "b": None, "shares": [share]}))
    return Sampled(play=play, output=output, context=context, messages=found)
