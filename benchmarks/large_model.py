"""A transformer of 25 million parameters among three peers on this machine: seconds, and memory of every process.

`python -m benchmarks.large_model [--json] [--peers 3] [--rounds 2] [--optimizer sgd] [--blocks 6] [--tokens 11776]`

This process is the author: it traces, checks, signs and publishes; its check runs the plan in a process of its own.
Memory is what a process has resident at most: Linux's VmHWM. A node trains in a process of its own as well: its
figure is the most that both had at one time, looked at every 5 ms; its baseline is what it holds when it has
registered, before it knows of any plan (interpreter, libraries, its dataset), and the libraries of the other process.
The author's is what is there once `plans` and `torch` are imported, the check's once that process has imported what
it needs. What a process may take at most is known for the model of the default size; others are measured alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

import plans
from benchmarks.deployment import Deployment
from benchmarks.measure import at_least, options_of, print_report
from benchmarks.resident import Checking, Nodes, baseline_of, memory
from protocol.terms import Deadlines
from python_node.author import Author, make_terms
from python_node.loop import run

LENGTH, WIDTH = 32, 512
EXAMPLES, BATCH = 8, 4
MOST = {"sgd": 6, "momentum": 7, "adam": 9}
"""How many times its parameters' bytes a process may take beyond its baseline, by optimizer."""
OPTIMIZERS: dict[str, plans.SGD | plans.Adam] = {
    "sgd": plans.SGD(lr=0.01),
    "momentum": plans.SGD(lr=0.01, momentum=0.9),
    "adam": plans.Adam(lr=0.001),
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """What decides how large the model is: 3.2 million parameters per block, and 512 per token."""

    blocks: int = 6
    tokens: int = 11_776


class Transformer(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """Predicts the next token: causal blocks, the embedding tied to the output."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embed = nn.Embedding(size.tokens, WIDTH)
        self.places = nn.Parameter(torch.zeros(LENGTH, WIDTH))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 8, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(size.blocks)
        )
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scores [batch, tokens] of what follows."""
        mask = nn.Transformer.generate_square_subsequent_mask(LENGTH)
        x = self.embed(tokens) + self.places
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        return nn.functional.linear(self.norm(x[:, -1]), self.embed.weight)


def traced(size: Size, optimizer: plans.SGD | plans.Adam) -> plans.Plan:
    """The plan."""
    torch.manual_seed(0)
    return plans.trace(
        Transformer(size),
        loss="cross_entropy",
        optimizer=optimizer,
        inputs={"tokens": plans.Field("int64", (LENGTH,), below=size.tokens)},
        targets={"next": plans.Field("int64")},
        batch_size=BATCH,
        name="transformer",
        version="1",
    )


def data(size: Size, seed: int) -> dict[str, np.ndarray]:
    """One peer's random text."""
    random = np.random.default_rng(seed)
    return {
        "tokens": random.integers(0, size.tokens, (EXAMPLES, LENGTH)),
        "next": random.integers(0, size.tokens, EXAMPLES),
    }


async def measure(plan: plans.Plan, size: Size, peers: int, rounds: int) -> dict[str, Any]:
    """One deployment, one run."""
    stages = ("train", "advertise", "share", "commit", "consistency", "unmask", "sum")
    slow = {f"{stage}_ms": 120_000 for stage in stages}
    terms = make_terms(
        plan,
        rounds=rounds,
        cohort_size=peers,
        min_cohort=peers,
        min_survivors=3,
        max_examples=EXAMPLES,
        clip=0.1,
        deadlines=Deadlines(**slow),
    )
    async with Deployment(gather_s=0.2) as world, await Author.connect(world.url, world.author) as author:
        files = [world.save_data(f"data-{i}", data(size, i)) for i in range(peers)]
        await asyncio.gather(*(world.node(f"node-{i}", file) for i, file in enumerate(files)))
        nodes = list(world.nodes.values())
        training = baseline_of("plans.process")
        baseline = [memory(node.pid, "VmRSS") + training for node in nodes]
        server_baseline = memory(world.signaling_pid, "VmRSS")
        began = time.perf_counter()
        with Nodes(node.pid for node in nodes) as followed:
            await author.publish(plan, terms)
            published = time.perf_counter() - began
            done = [
                [await node.until("round_completed", round=number, within_s=900) for node in nodes]
                for number in range(1, rounds + 1)
            ]
        peak = [followed.peaks[node.pid] for node in nodes]
        of_model = 4 * plan.manifest.parameter_count
        over_model = [(p - b) / of_model for p, b in zip(peak, baseline, strict=True)]
        return {
            "parameters": plan.manifest.parameter_count,
            "publish_seconds": round(published, 2),
            "slowest_peer_seconds": [
                {stage: round(max(e["seconds"].get(stage, 0) for e in events), 2) for stage in events[0]["seconds"]}
                for events in done
            ],
            "node_baseline_bytes": max(baseline),
            "node_peak_bytes": max(peak),
            "node_peak_over_parameters": round(max(over_model), 2),
            "signaling_peak_over_parameters": round((memory(world.signaling_pid) - server_baseline) / of_model, 2),
        }


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """One per figure, for people."""
    for name, value in figures.items():
        yield f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}"


def main() -> None:
    """Print one JSON object, or a line per figure; exit 1 where a node took more than it may."""
    parser = options_of(__doc__)
    parser.add_argument("--peers", type=at_least(3), default=3, help="default: %(default)s")
    parser.add_argument("--rounds", type=at_least(1), default=2, help="default: %(default)s")
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="sgd", help="default: %(default)s")
    parser.add_argument("--blocks", type=at_least(1), default=Size.blocks, help="of the model; default: %(default)s")
    parser.add_argument(
        "--tokens", type=at_least(2500), default=Size.tokens,
        help="that it knows, so many that even one block makes a large model (16 MiB); default: %(default)s",
    )  # fmt: skip
    options = parser.parse_args()
    size = Size(blocks=options.blocks, tokens=options.tokens)
    baseline = {"author": memory("self", "VmRSS"), "check": baseline_of("plans.trial")}
    began = time.perf_counter()
    with Checking() as checking:
        plan = traced(size, OPTIMIZERS[options.optimizer])
    seconds = time.perf_counter() - began
    traced_peak = memory("self")
    figures = run(measure(plan, size, options.peers, options.rounds))
    of_model = 4 * plan.manifest.parameter_count
    figures |= {"trace_and_check_seconds": round(seconds, 2), "author_trace_peak_bytes": traced_peak}
    for who, peak in (("author", memory("self")), ("check", checking.peak)):
        figures |= {f"{who}_baseline_bytes": baseline[who], f"{who}_peak_bytes": peak}
        figures[f"{who}_peak_over_parameters"] = round((peak - baseline[who]) / of_model, 2)
    settings = {name: getattr(options, name) for name in ("peers", "rounds", "optimizer")}
    settings |= {"batch": BATCH, "length": LENGTH, "width": WIDTH, **asdict(size)}
    print_report("large_model", settings=settings, figures=figures, as_json=options.json, lines=lines)
    if size != Size():
        return
    most = MOST[options.optimizer]
    for who in ("node", "author", "check"):
        if figures[f"{who}_peak_over_parameters"] > most:
            raise SystemExit(f"{who}: {figures[f'{who}_peak_over_parameters']} times the parameters, at most {most}")


if __name__ == "__main__":
    main()
