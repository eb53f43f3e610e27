"""From vector files to the requests that a peer under test is given, and what it must answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Request", "requests_of"]

Json = dict[str, Any]
TIMED = ("decide", "ack", "have", "certificate", "assign")
"""Messages that depend on who hears what first: not compared."""


@dataclass(frozen=True)
class Request:
    """One line for the peer; `expected` is its answer, without the rule where the answer is invalid."""

    id: str
    op: str
    input: Json
    expected: Json

    def matches(self, answer: Json) -> bool:
        """Whether an answer is right. The order of an outbox is free, and so are rule names."""
        if answer.get("result") != self.expected["result"]:
            return False
        return self.expected["result"] == "invalid" or _sorted(answer["output"]) == _sorted(self.expected["output"])


def _sorted(output: Json) -> Json:
    if "outbox" not in output:
        return output
    return output | {"outbox": sorted(output["outbox"], key=lambda m: (m["type"], str(m["to"]), m["bytes"]))}


def requests_of(vectors: Json) -> Iterator[Request]:
    """Every request of one file: one per case, and for a round one per peer that stays."""
    for case in vectors["cases"]:
        if vectors["op"] == "rounds":
            yield from _of_round(case)
        else:
            expected = {"result": case["result"]} | ({"output": case["output"]} if "output" in case else {})
            yield Request(case["id"], vectors["op"], case["input"], expected)


def _of_round(case: Json) -> Iterator[Request]:
    given, output = case["input"], case["output"]
    for peer in given["peers"]:
        me = peer["index"]
        if me in given["gone"]:
            continue
        heard = [m["bytes"] for m in output["messages"] if _hears(me, m)]
        sent = [m for m in output["messages"] if m["from"] == me and m["type"] not in TIMED]
        outbox = [{name: m[name] for name in ("to", "type", "bytes")} for m in sent]
        expected = {"outbox": outbox, "theta": output["theta"], "buffers": output["buffers"]}
        request = {"announcement": given["announcement"], "gone": given["gone"], "peer": peer, "inbox": heard}
        yield Request(f"{case['id']}-{me}", "rounds", request, {"result": "valid", "output": expected})


def _hears(me: int, message: Json) -> bool:
    """Messages of others for this peer; a leader also hears its own proposals."""
    if message["from"] == me:
        return message["type"] in {"decide", "assign", "certificate"}
    return message["to"] in ("all", me)
