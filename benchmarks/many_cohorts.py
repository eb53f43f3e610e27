"""What many cohorts per round cost a peer.

`python -m benchmarks.many_cohorts [--json] [--peers N ...] [--elements D] [--size N] [--fan-in N]`

Real machines and real cryptography, level by level, in one process and thread. CPU is the process's time and bytes
those handed to links (without DTLS and SCTP), both divided by the peers of a level; `all_levels` adds up what the
whole population spent, divided by the population. Every sum is checked against the plain sum of all updates.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.measure import at_least, options_of, print_report
from protocol.cohorts import FinishedGroup, arrange, compute_group_round_id, name_delegates
from protocol.identity import Identity, PeerId
from protocol.round.actions import Completed, Failed, Revealed, Send, Work
from protocol.round.combining import combining_parameters, group_sum, group_sum_digest, most_peers
from protocol.round.jobs import GroupSum, LocalUpdate, MaskJob, tail_bytes
from protocol.round.machine import RoundMachine, randomness_bytes
from protocol.secagg.parameters import RoundParameters
from protocol.secagg.prg import TILE
from protocol.terms import Deadlines

RUN = hashlib.sha256(b"many cohorts").hexdigest()
MOST_GROWTH = 1.25
"""Target: bytes per peer at the largest population are at most so many times those at the smallest."""

Contributions = Mapping[PeerId, LocalUpdate | GroupSum]


@dataclass
class Cohort:
    """One cohort of any level, its wire and what came out of it."""

    parameters: RoundParameters
    identities: Mapping[PeerId, Identity]
    contributions: Contributions
    bytes: int = 0
    most_bytes: int = 0
    put_in: dict[int, np.ndarray] = field(default_factory=dict)
    total: GroupSum | None = None
    results: dict[PeerId, str] = field(default_factory=dict)

    def run(self) -> None:
        """Everybody completes with the same sum, or RuntimeError."""
        cohort = self.parameters.cohort
        self._wire: deque[tuple[int, Send]] = deque()
        self._sent = [0] * len(cohort)
        self._machines = [
            RoundMachine(
                parameters=self.parameters,
                identity=self.identities[peer],
                fingerprint=bytes([index]) * 32,
                deadlines=Deadlines(),
                randomness=os.urandom(randomness_bytes(self.parameters)),
            )
            for index, peer in enumerate(cohort)
        ]
        for index, peer in enumerate(self._machines):
            for other in range(len(cohort)):
                if other != index:
                    peer.link_up(other, bytes([other]) * 32, 0.0)
            peer.start(0.0)
            peer.provide_update(self.contributions[cohort[index]], 0.0)
        for index in range(len(cohort)):
            self._act(index)
        while self._wire:
            sender, action = self._wire.popleft()
            self._machines[action.to].receive(sender, action.data, bulk=action.bulk, now=0.0)
            self._act(action.to)
        self.bytes, self.most_bytes = sum(self._sent), max(self._sent)
        if len(self.results) != len(cohort) or len(set(self.results.values())) != 1:
            raise RuntimeError(f"{len(self.results)} of {len(cohort)} peers completed with the same sum")
        del self._machines, self._wire

    def _act(self, index: int) -> None:
        peer = self._machines[index]
        while actions := peer.actions():
            for action in actions:
                match action:
                    case Send():
                        self._sent[index] += len(action.data)
                        self._wire.append((index, action))
                    case Work(job=job):
                        if isinstance(job, MaskJob):
                            self._note(index, job)
                        peer.finish_work(action.number, job(), 0.0)
                    case Revealed(aggregate=aggregate):
                        length = self.parameters.vector_length - 2
                        self.total = group_sum(aggregate, self.parameters, model_length=length)
                        peer.provide_result(group_sum_digest(self.total), tail_bytes(aggregate.tail(length)), 0.0)
                    case Completed(model_digest=digest):
                        self.results[self.parameters.cohort[index]] = digest
                    case Failed(reason=reason):
                        raise RuntimeError(reason)

    def _note(self, index: int, job: MaskJob) -> None:
        """Keep what an update becomes in the ring, for the check at the end."""
        if isinstance(job.update, LocalUpdate):
            ring = np.empty(self.parameters.padded_length, np.uint32)
            elements = job.update.ring_elements(self.parameters, job.rounding_key)
            for start in range(0, len(ring), TILE):
                elements.fill(ring[start : start + TILE])
            self.put_in[index] = ring.view(np.int32)


def measure(population: int, elements: int, size: int, fan_in: int) -> dict[str, Any]:
    """CPU milliseconds and kilobytes per peer, by level, of one round without dropouts."""
    identities = {i.peer_id: i for i in (Identity(os.urandom(32)) for _ in range(population))}
    generator = np.random.default_rng(population)
    shared = [generator.normal(0, 0.01, elements - 2).astype(np.float32) for _ in range(64)]
    updates = [LocalUpdate(shared[i % 64], 1.0, (0.5,)) for i in range(population)]
    contributions: Contributions = dict(zip(identities, updates, strict=True))
    cohorts = arrange(list(identities), size=size, smallest=3, most=1 << 16)
    parameters = [_first_level(cohort, group, elements) for group, cohort in enumerate(cohorts)]
    plain = np.zeros(elements, np.int64)
    levels: list[dict[str, object]] = []
    seconds = sent = 0.0
    while True:
        done = [Cohort(part, identities, contributions) for part in parameters]
        began = time.process_time()
        for cohort in done:
            cohort.run()
        spent = time.process_time() - began
        plain += sum((row[:elements] for cohort in done for row in cohort.put_in.values()), start=np.int64(0))
        seconds, sent = seconds + spent, sent + sum(cohort.bytes for cohort in done)
        levels.append(_level(done, spent))
        if len(done) == 1:
            break
        contributions = {peer: c.total for c in done for peer in c.parameters.cohort if c.total is not None}
        parameters = _next_level(done, len(levels) + 1, fan_in)
    if done[0].total is None or not np.array_equal(done[0].total.sums, plain):
        raise RuntimeError("the last level's sum is not the plain sum of all updates")
    return {
        "peers": population,
        "levels": levels,
        "all_levels": {
            "cpu_ms_per_peer": round(1000 * seconds / population, 3),
            "kilobytes_per_peer": round(sent / population / 1000, 3),
        },
    }


def _level(done: list[Cohort], spent: float) -> dict[str, object]:
    taking_part = sum(cohort.parameters.size for cohort in done)
    return {
        "cohorts": len(done),
        "peers": taking_part,
        "largest_cohort": max(cohort.parameters.size for cohort in done),
        "cpu_ms_per_peer": round(1000 * spent / taking_part, 3),
        "kilobytes_per_peer": round(sum(cohort.bytes for cohort in done) / taking_part / 1000, 3),
        "kilobytes_most": round(max(cohort.most_bytes for cohort in done) / 1000, 3),
    }


def _first_level(cohort: tuple[PeerId, ...], group: int, elements: int) -> RoundParameters:
    return RoundParameters(
        run_id=RUN,
        round_id=compute_group_round_id(RUN, 1, 1, 1, group),
        plan_digest="11" * 32,
        model_digest="22" * 32,
        cohort=cohort,
        min_survivors=3,
        ring_bits=20 if len(cohort) <= 16 else 24,
        value_bits=16,
        replicas=1,
        vector_length=elements,
        clip=0.1,
    )


def _next_level(done: list[Cohort], level: int, fan_in: int) -> list[RoundParameters]:
    groups = [
        FinishedGroup(
            group=group,
            round_id=cohort.parameters.round_id,
            sum_digest=next(iter(cohort.results.values())),
            signers=tuple(cohort.results),
            peers=most_peers(cohort.parameters),
        )
        for group, cohort in enumerate(done)
    ]
    return [
        combining_parameters(done[0].parameters, delegation, round_id=compute_group_round_id(RUN, 1, 1, level, group))
        for group, delegation in enumerate(name_delegates(groups, fan_in=fan_in))
    ]


def main() -> None:
    """Print the figures; the exit status is 1 where bytes per peer grow with the population."""
    parser = options_of(__doc__)
    parser.add_argument("--peers", type=at_least(3), nargs="+", default=[100, 1_000], help="populations")
    parser.add_argument("--elements", type=at_least(3), default=1_000, help="of a vector; default: %(default)s")
    parser.add_argument("--size", type=at_least(3), default=10, help="of a cohort; default: %(default)s")
    parser.add_argument("--fan-in", type=at_least(4), default=10, help="sums that are combined; default: %(default)s")
    options = parser.parse_args()
    found = []
    for population in options.peers:
        found.append(measure(population, options.elements, options.size, options.fan_in))
        if not options.json:
            print(json.dumps(found[-1], indent=2), flush=True)
    if options.json:
        settings = {"elements": options.elements, "cohort_size": options.size, "fan_in": options.fan_in}
        figures = {f"n{case['peers']}": case for case in found}
        print_report("many_cohorts", settings=settings, figures=figures, as_json=True)
    costs = [case["all_levels"]["kilobytes_per_peer"] for case in found]
    if max(costs) > MOST_GROWTH * costs[0]:
        sys.exit(f"kilobytes per peer {costs}: expected at most {MOST_GROWTH} times the first")


if __name__ == "__main__":
    main()
