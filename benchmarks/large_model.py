"""A transformer of 25 million parameters among three peers on this machine: seconds, and memory of every process.

`python -m benchmarks.large_model [--json] [--peers 3] [--rounds 2] [--optimizer sgd]`

This process is the author: it traces, checks, signs and publishes; its check runs the plan in a process of its own.
Memory is Linux's VmHWM, the most a process ever had resident. A node's baseline is what it holds when it has
registered, before it knows of any plan: interpreter, libraries, its dataset. The author's is what is there once
`plans` and `torch` are imported, the check's once that process has imported what it needs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

import numpy as np
import torch
from torch import nn

import plans
from benchmarks.deployment import Deployment
from benchmarks.measure import machine
from benchmarks.resident import Checking, checking_baseline, memory
from protocol.terms import Deadlines
from python_node.author import Author, make_terms
from python_node.loop import run

TOKENS, LENGTH, WIDTH, BLOCKS = 11_776, 32, 512, 6
EXAMPLES, BATCH = 8, 4
MOST = {"sgd": 6, "momentum": 7, "adam": 9}
"""How many times its parameters' bytes a process may take beyond its baseline, by optimizer."""
OPTIMIZERS = {"sgd": plans.SGD(lr=0.01), "momentum": plans.SGD(lr=0.01, momentum=0.9), "adam": plans.Adam(lr=0.001)}


class Transformer(nn.Module):
    """Predicts the next token: causal blocks, the embedding tied to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.places = nn.Parameter(torch.zeros(LENGTH, WIDTH))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 8, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(BLOCKS)
        )
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scores [batch, tokens] of what follows."""
        mask = nn.Transformer.generate_square_subsequent_mask(LENGTH)
        x = self.embed(tokens) + self.places
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        return nn.functional.linear(self.norm(x[:, -1]), self.embed.weight)


def traced(optimizer: plans.SGD | plans.Adam) -> plans.Plan:
    """The plan."""
    torch.manual_seed(0)
    return plans.trace(
        Transformer(),
        loss="cross_entropy",
        optimizer=optimizer,
        inputs={"tokens": plans.Field("int64", (LENGTH,), below=TOKENS)},
        targets={"next": plans.Field("int64")},
        batch_size=BATCH,
        name="transformer-25m",
        version="1",
    )


def data(seed: int) -> dict[str, np.ndarray]:
    """One peer's random text."""
    random = np.random.default_rng(seed)
    return {
        "tokens": random.integers(0, TOKENS, (EXAMPLES, LENGTH)),
        "next": random.integers(0, TOKENS, EXAMPLES),
    }


async def measure(plan: plans.Plan, peers: int, rounds: int) -> dict[str, Any]:
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
        files = [world.save_data(f"data-{i}", data(i)) for i in range(peers)]
        await asyncio.gather(*(world.node(f"node-{i}", file) for i, file in enumerate(files)))
        nodes = list(world.nodes.values())
        baseline = [memory(node.pid, "VmRSS") for node in nodes]
        server_baseline = memory(world.signaling_pid, "VmRSS")
        began = time.perf_counter()
        await author.publish(plan, terms)
        published = time.perf_counter() - began
        done = [
            [await node.until("round_completed", round=number, within_s=900) for node in nodes]
            for number in range(1, rounds + 1)
        ]
        peak = [memory(node.pid) for node in nodes]
        size = 4 * plan.manifest.parameter_count
        return {
            "parameters": plan.manifest.parameter_count,
            "publish_seconds": round(published, 2),
            "slowest_peer_seconds": [
                {stage: round(max(e["seconds"].get(stage, 0) for e in events), 2) for stage in events[0]["seconds"]}
                for events in done
            ],
            "node_baseline_bytes": max(baseline),
            "node_peak_bytes": max(peak),
            "node_peak_over_parameters": round(max((p - b) / size for p, b in zip(peak, baseline, strict=True)), 2),
            "signaling_peak_over_parameters": round((memory(world.signaling_pid) - server_baseline) / size, 2),
        }


def main() -> None:
    """Print one JSON object, or a line per figure; exit 1 where a node took more than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="sgd")
    options = parser.parse_args()
    baseline = {"author": memory("self", "VmRSS"), "check": checking_baseline()}
    began = time.perf_counter()
    with Checking() as checking:
        plan = traced(OPTIMIZERS[options.optimizer])
    seconds = time.perf_counter() - began
    traced_peak = memory("self")
    figures = run(measure(plan, options.peers, options.rounds))
    size = 4 * plan.manifest.parameter_count
    figures |= {"trace_and_check_seconds": round(seconds, 2), "author_trace_peak_bytes": traced_peak}
    for who, peak in (("author", memory("self")), ("check", checking.peak)):
        figures |= {f"{who}_baseline_bytes": baseline[who], f"{who}_peak_bytes": peak}
        figures[f"{who}_peak_over_parameters"] = round((peak - baseline[who]) / size, 2)
    if options.json:
        settings = {name: getattr(options, name) for name in ("peers", "rounds", "optimizer")}
        settings |= {"batch": BATCH, "length": LENGTH}
        print(json.dumps({"name": "large_model", "machine": machine(), "settings": settings, "figures": figures}))
    else:
        for name, value in figures.items():
            print(f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}")
    most = MOST[options.optimizer]
    for who in ("node", "author", "check"):
        if figures[f"{who}_peak_over_parameters"] > most:
            raise SystemExit(f"{who}: {figures[f'{who}_peak_over_parameters']} times the parameters, at most {most}")


if __name__ == "__main__":
    main()
