"""Fine-tuning: adapters on a frozen transformer that has read Python's manual; peers teach it a licence.

`python -m examples.fine_tune --out adapters.plan`, `--try` to train it here first. Some seconds of training make the
base, where a downloaded one would be: a part of the plan, fetched once. Rounds carry adapters alone.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

import plans
from examples.next_character import CHARACTERS, LENGTH, load, windows_of

if TYPE_CHECKING:
    from plans import Plan


def build_plan(seed: int = 0, steps: int = 200) -> Plan:
    """Train the base for `steps` steps, freeze it, put adapters on it and trace the plan."""
    from pydoc_data.topics import topics  # noqa: PLC0415 - the manual, which comes with every Python for its help()

    import torch  # noqa: PLC0415 - a node that imports this file for its name needs no torch
    from torch import nn  # noqa: PLC0415

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(CHARACTERS, 48)
            self.place = nn.Parameter(torch.randn(LENGTH, 48) * 0.1)
            block = nn.TransformerEncoderLayer(48, 4, 192, dropout=0.0, batch_first=True, norm_first=True)
            self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
            self.choose = nn.Linear(48, CHARACTERS)
            self.register_buffer("later", torch.full((LENGTH, LENGTH), -1e9).triu(1))

        def read(self, text: torch.Tensor) -> torch.Tensor:
            return self.choose(self.blocks(self.embed(text) + self.place, mask=self.later, is_causal=False))

        def forward(self, text: torch.Tensor) -> torch.Tensor:
            return self.read(text)[:, -1]

    torch.manual_seed(seed)
    base, windows = (
        Reader(),
        torch.from_numpy(windows_of("".join(map(topics.get, sorted(topics))).encode("ascii", "ignore"))),
    )
    descent = torch.optim.Adam(base.parameters(), lr=3e-3)
    for _ in range(steps):
        batch = windows[torch.randint(len(windows), (64,))]
        descent.zero_grad()
        nn.functional.cross_entropy(base.read(batch[:, :-1]).transpose(1, 2), batch[:, 1:]).backward()
        descent.step()
    model = plans.lora(base, ["blocks.layers.*.linear*", "choose"], rank=8, alpha=16.0)
    return plans.trace(
        model,
        loss="cross_entropy",
        optimizer=plans.Adam(lr=0.003),
        inputs={"text": plans.Field("int64", (LENGTH,), below=CHARACTERS)},
        targets={"next": plans.Field("int64")},
        metrics=["accuracy"],
        name="adapters",
        version="1",
        description="Adapters on a frozen transformer that says which character follows 32 others.",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="adapters.plan")
    parser.add_argument("--try", action="store_true", dest="attempt")
    arguments, plan = parser.parse_args(), build_plan()
    print(f"{plan.save(arguments.out)}: {plan.manifest.parameter_count} travel, {plan.manifest.frozen_count} do not")
    if arguments.attempt:
        (train, held_out), executor = load(), plans.Executor(plan)
        start = [plan.initial(role) for role in ("theta", "optimizer_state", "buffers")]
        done = executor.train(*start, train, batch_size=32, epochs=2, learning_rate=0.003, seed=b"try")
        found = [executor.evaluate(theta, start[2], held_out).mean("loss") for theta in (start[0], done.theta)]
        print("held-out perplexity before and after: {:.1f}, {:.1f}".format(*np.exp(found)))
