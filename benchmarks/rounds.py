"""Whole rounds among real processes over WebRTC on this machine: seconds by stage, bytes per peer.

`python -m benchmarks.rounds [--json] [--peers 3,5,10] [--parameters small,1m] [--rounds 12] [--cohorts 1]`

Each case starts `peerplan signal` and n times `peerplan node`; this process is the author. Figures leave the first
round out, in which links are made. `spread` is the 10th to 90th percentile over rounds (of the slowest peer of each
round), bytes are those on the data channels, control messages and frame headers included. With several cohorts (spec
08) stages are those of the groups, a delegate's bytes count both levels, and the model that others fetch is left out.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import plans
from benchmarks.deployment import Deployment, NodeProcess
from benchmarks.measure import at_least, options_of, print_report, summary
from benchmarks.resident import cpu_s
from examples.digits import build_plan
from protocol.tail import tail_length
from protocol.terms import RunTerms
from python_node.author import Author, make_terms
from python_node.loop import loop_name, run
from python_node.training import model_length

if TYPE_CHECKING:
    from plans import Plan
    from protocol.signaling import LogEntry

STAGES = ("link", "train", "mask", "exchange", "unmask", "total")
RING_BITS = 20


@dataclass(frozen=True)
class Case:
    """A plan and how much of it one peer does in a round."""

    plan: Plan
    width: int
    examples: int
    batch_size: int

    def data(self, seed: int) -> dict[str, np.ndarray]:
        """One peer's images and labels."""
        random = np.random.default_rng(seed)
        image = random.uniform(0, 1, (self.examples, self.width)).astype(np.float32)
        return {"image": image, "label": random.integers(0, 10, self.examples)}


def small() -> Case:
    """The digits example: 2,410 parameters, one local epoch of 288 examples."""
    return Case(build_plan(), 64, 288, 16)


def million() -> Case:
    """An MLP of 1,068,810 parameters, four local steps of 32 examples."""
    import torch  # noqa: PLC0415 (only where a plan is traced)
    from torch import nn  # noqa: PLC0415

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, 10))
    plan = plans.trace(
        model,
        loss="cross_entropy",
        optimizer=plans.SGD(lr=0.05),
        inputs={"image": plans.Field("float32", (784,))},
        targets={"label": plans.Field("int64")},
        metrics=["accuracy"],
        batch_size=32,
        name="mlp-1m",
        version="1",
    )
    return Case(plan, 784, 128, 32)


CASES = {"small": small, "1m": million}


def packed_bytes(plan: Plan, terms: RunTerms) -> int:
    """Bytes of one packed masked vector: what a peer must send at least once."""
    elements = model_length(plan) + tail_length(plan.manifest, terms)
    return -(-elements // 8) * terms.ring_bits


async def measure(case: Case, peers: int, rounds: int, cohorts: int) -> dict[str, Any]:
    """One deployment, one run."""
    terms = make_terms(
        case.plan,
        rounds=rounds,
        cohort_size=peers // cohorts,
        min_cohort=peers // cohorts,
        cohorts=cohorts,
        min_survivors=3,
        max_examples=case.examples,
        batch_size=case.batch_size,
        ring_bits=RING_BITS,
        clip=0.5,
    )
    async with Deployment(gather_s=0.2) as world, await Author.connect(world.url, world.author) as author:
        files = [world.save_data(f"data-{i}", case.data(i)) for i in range(peers)]
        await asyncio.gather(*(world.node(f"node-{i}", file) for i, file in enumerate(files)))
        status = await author.publish(case.plan, terms)
        pids = [node.pid for node in world.nodes.values()]
        first = asyncio.create_task(_processor(world, 1))
        logged = await _logged(author, status.run, rounds)
        before, after = await first, await _processor(world, rounds)
        done = [[await _completed(node, number) for node in world.nodes.values()] for number in range(2, rounds + 1)]
        processor = {
            "node": (sum(after[pid] - before[pid] for pid in pids)) / (peers * (rounds - 1)),
            "signaling": (after[world.signaling_pid] - before[world.signaling_pid]) / (rounds - 1),
        }
        retried = sum(entry.attempt - 1 for entry in logged)
        short = sum(entry.peers()[1] < peers for entry in logged)
    found = _figures(case, terms, done, logged)
    return found | {
        "processor_seconds_per_round": processor,
        "retried_attempts": retried,
        "rounds_with_dropouts": short,
    }


async def _completed(node: NodeProcess, number: int) -> dict[str, Any]:
    """What a node said of its attempt at a round, a delegate's second one included."""
    await node.until("round_completed", "fetched", round=number)
    parts = [*node.of("group_completed", round=number), *node.of("round_completed", round=number)]
    return parts[0] | {"bytes_sent": sum(part["bytes_sent"] for part in parts)}


async def _processor(world: Deployment, number: int) -> dict[int, float]:
    """Processor seconds of every process once all nodes hold a round's model."""
    for node in world.nodes.values():
        await node.until("round_completed", "fetched", round=number)
    return {pid: cpu_s(pid) for pid in [world.signaling_pid, *(node.pid for node in world.nodes.values())]}


async def _logged(author: Author, run_id: str, rounds: int) -> list[LogEntry]:
    entries = []
    async for event in author.watch(run_id):
        entry = getattr(event, "entry", None)
        if entry is not None:
            entries.append(entry)
    if len(entries) != rounds:
        raise RuntimeError(f"run {run_id[:8]} ended after {len(entries)} of {rounds} rounds")
    return entries


def _figures(case: Case, terms: RunTerms, done: list[list[dict[str, Any]]], logged: list[LogEntry]) -> dict[str, Any]:
    packed = packed_bytes(case.plan, terms)
    sent = [event["bytes_sent"] for events in done for event in events]
    gaps = [after.logged_at - before.logged_at for before, after in itertools.pairwise(logged)]
    return {
        "parameters": case.plan.manifest.parameter_count,
        "seconds": {
            stage: summary([max(event["seconds"][stage] for event in events) for events in done]) for stage in STAGES
        },
        "seconds_from_cohort_to_log": summary([entry.seconds for entry in logged[1:]]),
        "seconds_from_log_to_log": summary(gaps),
        "bytes_sent_per_peer": summary(sent),
        "packed_model_bytes": packed,
        "sent_over_packed": summary([count / packed for count in sent]),
        "most_sent_over_packed": max(sent) / packed,
    }


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """One per case, for people."""
    for name, found in figures.items():
        stages = ", ".join(f"{stage} {found['seconds'][stage]['median']:.3f}" for stage in STAGES)
        whole, processor = found["seconds_from_log_to_log"], found["processor_seconds_per_round"]
        low, high = whole["spread"]
        yield (
            f"{name}: {whole['median']:.3f} s a round ({low:.3f} to {high:.3f}); processor {processor['node']:.3f} s "
            f"per node, {processor['signaling']:.3f} s signaling; slowest peer: {stages}; sent "
            f"{found['sent_over_packed']['median']:.3f} x packed (most {found['most_sent_over_packed']:.3f}); "
            f"{found['retried_attempts']} retried, {found['rounds_with_dropouts']} with dropouts"
        )


def main() -> None:
    """Print one JSON object, or a line per case."""
    parser = options_of(__doc__)
    parser.add_argument("--peers", default="3,5,10", help="default: %(default)s")
    parser.add_argument("--parameters", default="small,1m", help="of: " + ", ".join(CASES))
    parser.add_argument("--rounds", type=at_least(2), default=12, help="the first one included; default: %(default)s")
    parser.add_argument("--cohorts", type=at_least(1), default=1, help="cohorts of a round; divides the peers")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for name in options.parameters.split(","):
        case = CASES[name]()
        for peers in (int(item) for item in options.peers.split(",")):
            found = {f"{name}_n{peers}": run(measure(case, peers, options.rounds, options.cohorts))}
            figures |= found
            if not options.json:
                print(*lines(found), flush=True)
    settings = {
        "rounds": options.rounds,
        "cohorts": options.cohorts,
        "ring_bits": RING_BITS,
        "loop": loop_name(),
        "threads_per_node": 1,
    }
    if options.json:
        print_report("rounds", settings=settings, figures=figures, as_json=True)


if __name__ == "__main__":
    main()
