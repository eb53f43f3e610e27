"""What a round of p2psa/1 costs a peer: `python -m benchmarks.secagg [--json] [--large | --only N D] [--repeats N]`.

Real machines and real cryptography, all peers in one process over an in-memory wire, one thread. CPU is the process's
time divided by the peers that take part (half of a dropout's share counts), with everything a peer does: keys,
signatures, quantising, masking, packing, checking, summing, unpacking, and applying the aggregate to the model. Bytes
are those a peer hands to its links (without DTLS and SCTP), mean over peers.
"""

from __future__ import annotations

import hashlib
import os
import time
import tracemalloc
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import at_least, options_of, print_report, summary
from protocol.identity import Identity
from protocol.round.actions import Completed, Failed, Revealed, Send, Work
from protocol.round.jobs import LocalUpdate, tail_bytes
from protocol.round.machine import RoundMachine, Stage, randomness_bytes
from protocol.secagg.apply import apply_aggregate, model_digest
from protocol.secagg.parameters import RoundParameters
from protocol.terms import Deadlines

TARGETS = {
    (10, 1_000_000): {"cpu_ms": 25.0, "megabytes": 4.6},
    (64, 1_000_000): {"cpu_ms": 80.0, "megabytes": 6.2},
    (10, 10_000_000): {"cpu_ms": 230.0},
}
"""Per peer, on one core, without dropouts."""


@dataclass(frozen=True)
class Case:
    """One setting: `lost` is the share of peers that vanish, `when` before or after they send masked chunks."""

    n: int
    elements: int
    lost: float = 0.0
    when: str = "never"

    @property
    def dropouts(self) -> int:
        """Peers that vanish: at most what leaves a quorum."""
        return min(round(self.n * self.lost), self.n - (2 * self.n // 3 + 1))

    @property
    def ring_bits(self) -> int:
        """The smallest ring for 16-bit values."""
        return 20 if self.n <= 16 else 24


class Cohort:
    """All peers of a round, their wire and their clock."""

    def __init__(self, case: Case) -> None:
        self.case = case
        length = case.elements - 2
        generator = np.random.default_rng(case.n)
        self.model = generator.normal(0, 0.1, length).astype(np.float32)
        self.update = generator.normal(0, 0.01, length).astype(np.float32)
        identities = sorted((Identity(os.urandom(32)) for _ in range(case.n)), key=lambda i: i.peer_id)
        self.parameters = RoundParameters(
            run_id=hashlib.sha256(b"benchmark").hexdigest(),
            round_id=os.urandom(32).hex(),
            plan_digest="11" * 32,
            model_digest=model_digest(self.model),
            cohort=tuple(identity.peer_id for identity in identities),
            min_survivors=3,
            ring_bits=case.ring_bits,
            value_bits=16,
            replicas=1,
            vector_length=case.elements,
            clip=0.1,
        )
        self.machines = [
            RoundMachine(
                parameters=self.parameters,
                identity=identity,
                fingerprint=bytes([index]) * 32,
                deadlines=Deadlines(),
                randomness=os.urandom(randomness_bytes(self.parameters)),
            )
            for index, identity in enumerate(identities)
        ]
        leader = self.machines[0].leader
        others = [index for index in range(case.n) if index != leader]
        self.victims = frozenset(others[: case.dropouts])
        self.gone: set[int] = set()
        self.wire: deque[tuple[int, Send]] = deque()
        self.bytes = [0] * case.n
        self.models: dict[int, str] = {}
        self.now = 0.0

    def run(self) -> None:
        """One whole round; every peer that stays must complete with the same model."""
        for index, peer in enumerate(self.machines):
            for other in range(self.case.n):
                if other != index:
                    peer.link_up(other, bytes([other]) * 32, self.now)
        for index, peer in enumerate(self.machines):
            peer.start(self.now)
            self._act(index)
        if self.case.when == "before":
            self._until(Stage.COLLECT)
            self._lose()
        for index in range(self.case.n):
            if index not in self.gone:
                self._provide(index)
        if self.case.when == "after":
            self._until(Stage.UNMASK)
            self._lose()
        self._drain()
        staying = [peer for index, peer in enumerate(self.machines) if index not in self.gone]
        if any(peer.stage is not Stage.DONE for peer in staying) or len(set(self.models.values())) != 1:
            raise RuntimeError(f"{self.case}: not every peer completed with the same model")

    def _provide(self, index: int) -> None:
        self.machines[index].provide_update(LocalUpdate(self.update, 1.0, (0.5,)), self.now)
        self._act(index)

    def _until(self, stage: Stage) -> None:
        while any(peer.stage < stage for peer in self.machines):
            self._deliver()

    def _lose(self) -> None:
        self.gone |= self.victims
        for index, peer in enumerate(self.machines):
            if index not in self.gone:
                for victim in sorted(self.victims):
                    peer.link_down(victim, self.now)
                self._act(index)

    def _drain(self) -> None:
        while True:
            while self.wire:
                self._deliver()
            due = [at for i, p in enumerate(self.machines) if i not in self.gone and (at := p.next_deadline())]
            if not due:
                return
            self.now = min(due)
            for index, peer in enumerate(self.machines):
                if index not in self.gone:
                    peer.tick(self.now)
                    self._act(index)

    def _deliver(self) -> None:
        sender, action = self.wire.popleft()
        if sender not in self.gone and action.to not in self.gone:
            self.machines[action.to].receive(sender, action.data, bulk=action.bulk, now=self.now)
            self._act(action.to)

    def _act(self, index: int) -> None:
        peer = self.machines[index]
        while actions := peer.actions():
            for action in actions:
                match action:
                    case Send():
                        self.bytes[index] += len(action.data)
                        self.wire.append((index, action))
                    case Work():
                        peer.finish_work(action.number, action.job(), self.now)
                    case Revealed(aggregate=aggregate):
                        new: NDArray[np.float32] = apply_aggregate(
                            self.model, aggregate, clip=0.1, largest_value=self.parameters.largest_value
                        )
                        self.models[index] = model_digest(new)
                        tail = tail_bytes(aggregate.tail(len(self.model)))
                        peer.provide_result(self.models[index], tail, self.now)
                    case Completed() | Failed():
                        self.last = action


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """CPU milliseconds and megabytes per peer of one case."""
    cpu, megabytes = [], []
    for repeat in range(repeats + 1):
        cohort = Cohort(case)
        began = time.process_time()
        cohort.run()
        spent = time.process_time() - began
        if repeat:  # the first run warms caches and the allocator
            cpu.append(1000 * spent / (case.n - case.dropouts / 2))
            megabytes.append(sum(cohort.bytes) / case.n / 1e6)
    found: dict[str, Any] = {
        "n": case.n,
        "d": case.elements,
        "ring_bits": case.ring_bits,
        "dropouts": case.dropouts,
        "when": case.when,
        "cpu_ms": summary(cpu),
        "megabytes": summary(megabytes),
    }
    if case.when == "never":
        found["target"] = TARGETS.get((case.n, case.elements))
    return found


def peak_memory(case: Case) -> dict[str, Any]:
    """Peak bytes of all peers together (tracemalloc), per peer and relative to one float32 vector.

    All peers share the wire here, so this is above what one process of one peer needs.
    """
    cohort = Cohort(case)
    tracemalloc.start()
    cohort.run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    per_peer = peak / case.n
    return {
        "n": case.n,
        "d": case.elements,
        "bytes_per_peer": round(per_peer),
        "float_vectors": round(per_peer / (4 * case.elements), 2),
    }


def cases(n: int, elements: int) -> list[Case]:
    """One size: nobody lost, and a tenth and three tenths before and after; fewer than one peer is no case."""
    found: dict[tuple[int, str], Case] = {}
    for case in (
        Case(n, elements),
        *(Case(n, elements, lost, w) for lost in (0.1, 0.3) for w in ("before", "after")),
    ):
        if case.when == "never" or case.dropouts:
            found.setdefault((case.dropouts, case.when), case)
    return list(found.values())


def table(*, large: bool) -> list[Case]:
    """Every setting of the table."""
    out = []
    for n in (5, 10, 32, 64):
        out += [Case(n, 2_400), *cases(n, 10_000), *cases(n, 1_000_000)]
    return [*out, Case(10, 10_000_000)] if large else out


def main() -> int:
    """Run, print; 1 where a target is missed."""
    parser = options_of(__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--large", action="store_true", help="also 10 peers with 10 million elements (2 GB of memory)")
    which.add_argument(
        "--only",
        nargs=2,
        type=at_least(3),
        metavar=("N", "D"),
        help="one cohort size and vector length, with dropouts",
    )
    parser.add_argument("--repeats", type=at_least(1), default=3, help="default: %(default)s")
    options = parser.parse_args()
    chosen = cases(*options.only) if options.only else table(large=options.large)
    rows = []
    for case in chosen:
        row = measure(case, options.repeats)
        rows.append(row)
        if not options.json:
            print(line(row), flush=True)
    memory = peak_memory(Case(*(options.only or (10, 1_000_000))))
    if options.json:
        settings = {"repeats": options.repeats, "threads": 1, "value_bits": 16}
        print_report("secagg", settings=settings, figures={"rounds": rows, "memory": memory}, as_json=True)
    else:
        shown = f"n={memory['n']} d={memory['d']}, wire included"
        print(f"peak memory: {memory['float_vectors']} float vectors per peer ({shown})")
    return int(any(missed(row) for row in rows))


def line(row: dict[str, Any]) -> str:
    """One row for people."""
    cpu, megabytes = row["cpu_ms"]["median"], row["megabytes"]["median"]
    target = f"  target {row['target']}" if row.get("target") else ""
    lost = f"{row['dropouts']} lost {row['when']}" if row["dropouts"] else "nobody lost"
    return (
        f"n={row['n']:>2} d={row['d']:>8} k={row['ring_bits']} {lost:<14} {cpu:8.1f} ms {megabytes:8.3f} MB{target}"
    )


def missed(row: dict[str, Any]) -> bool:
    """Whether a median is above its target."""
    return any(row[name]["median"] > bound for name, bound in (row.get("target") or {}).items())


if __name__ == "__main__":
    raise SystemExit(main())
