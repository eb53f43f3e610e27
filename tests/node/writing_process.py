"""Writes into a state folder without end and prints what has returned; killed by `test_state`."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from python_node.state import NodeState

RUN = "ab" * 32


def model_of(number: int) -> bytes:
    """288,000 bytes that differ with every number."""
    return hashlib.sha256(str(number).encode()).digest() * 9_000


def say(what: str, which: object) -> None:
    """Tell the test that a write has returned."""
    sys.stdout.write(f"{what} {which}\n")
    sys.stdout.flush()


def main() -> None:
    """Write from number `argv[2]` on."""
    state = NodeState.open(Path(sys.argv[1]))
    say("identity", state.identity().peer_id)
    state.save_run(RUN, b"terms", b"plan", "digits")
    number = int(sys.argv[2])
    while True:
        state.record(f"round-{number}", "joined", "")
        say("joined", number)
        model = model_of(number)
        digest = hashlib.sha256(model).hexdigest()
        state.save_checkpoint(RUN, number, model, digest)
        say("checkpoint", number)
        state.save_blob(digest, model)
        say("blob", number)
        number += 1


if __name__ == "__main__":
    main()
