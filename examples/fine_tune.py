"""Fine-tuning: adapters on a frozen transformer; of 28,000 parameters 1,900 travel.

`python -m examples.fine_tune --out adapters.plan`. The base here is small and random, where a pretrained model would
be: it is part of the plan, fetched once; rounds carry adapters, head and places. The task is to tell whether the
second half of a text holds two vowels or more.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

import plans

if TYPE_CHECKING:
    from plans import Plan

LENGTH, LETTERS = 16, 26


def build_plan(seed: int = 0) -> Plan:
    """Trace the plan."""
    import torch  # noqa: PLC0415 - a node that imports this file for its name needs no torch
    from torch import nn  # noqa: PLC0415

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(LETTERS, 32)
            self.place = nn.Parameter(torch.randn(LENGTH, 32) * 0.1)
            block = nn.TransformerEncoderLayer(32, 4, 128, dropout=0.0, batch_first=True)
            self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
            self.head = nn.Linear(32, 2)

        def forward(self, text: torch.Tensor) -> torch.Tensor:
            return self.head(self.blocks(self.embed(text) + self.place).mean(1))

    torch.manual_seed(seed)
    model = plans.lora(Reader(), ["blocks.layers.*.linear*"], rank=2, alpha=4.0, train=["head.*", "place"])
    return plans.trace(
        model,
        loss="cross_entropy",
        optimizer=plans.Adam(lr=0.01),
        inputs={"text": plans.Field("int64", (LENGTH,), below=LETTERS)},
        targets={"label": plans.Field("int64")},
        metrics=["accuracy"],
        name="adapters",
        version="1",
        description="Low-rank adapters on a frozen transformer that reads 16 letters.",
    )


def load(count: int, seed: int) -> dict[str, np.ndarray]:
    """Random texts and what is to be told of them."""
    text = np.random.default_rng(seed).integers(0, LETTERS, (count, LENGTH))
    vowels = np.isin(text[:, LENGTH // 2 :], [0, 4, 8, 14, 20]).sum(1)
    return {"text": text, "label": (vowels >= 2).astype(np.int64)}


def main() -> None:
    """Write the plan, and train it here if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="adapters.plan")
    parser.add_argument("--try", action="store_true", dest="attempt")
    arguments = parser.parse_args()
    plan = build_plan()
    manifest = plan.manifest
    print(f"{plan.save(arguments.out)}: {manifest.parameter_count} travel, {manifest.frozen_count} are frozen")
    if arguments.attempt:
        executor, start = plans.Executor(plan), [plan.initial(r) for r in ("theta", "optimizer_state", "buffers")]
        done = executor.train(*start, load(2000, 0), batch_size=32, epochs=10, learning_rate=0.01, seed=b"try")
        print(f"held-out accuracy {executor.evaluate(done.theta, done.buffers, load(500, 1)).mean('accuracy'):.2f}")


if __name__ == "__main__":
    main()
