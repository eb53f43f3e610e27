"""The reference as a peer under test: JSON lines in, JSON lines out (spec/peer-under-test.md).

python -m spec.reference.under_test < requests.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator

from spec.reference import ops_cohorts
from spec.reference.ops import OPS, perform
from spec.reference.replay import replay

__all__ = ["OPS", "answer"]

OPS["cohorts"] = ops_cohorts.answer_question
OPS["rounds"] = replay


def answer(lines: Iterable[str]) -> Iterator[str]:
    """One response line per request line; an unknown operation is answered "unsupported"."""
    for line in lines:
        request = json.loads(line)
        reply = perform(request["op"], request["input"]) if request["op"] in OPS else {"result": "unsupported"}
        yield json.dumps({"id": request["id"]} | reply)


if __name__ == "__main__":
    for reply_line in answer(sys.stdin):
        sys.stdout.write(reply_line + "\n")
        sys.stdout.flush()
