"""Handwritten digits: 8x8 images, an MLP of 2,410 parameters. `python -m examples.digits --out digits.plan`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import plans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plans import Plan


def build_plan(seed: int = 0, local: Sequence[str] = ()) -> Plan:
    """Trace the plan; torch is needed here and nowhere else. `local=["2.*"]` gives each peer a head of its own."""
    import torch  # noqa: PLC0415 - a node that imports this file for its name needs no torch
    from torch import nn  # noqa: PLC0415

    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    return plans.trace(
        model,
        loss="cross_entropy",
        optimizer=plans.SGD(lr=0.1),
        inputs={"image": plans.Field("float32", (64,))},
        targets={"label": plans.Field("int64")},
        metrics=["accuracy"],
        batch_size=16,
        local=local,
        name="digits",
        version="1",
        description="Which digit an 8x8 image shows; pixels scaled to 0..1.",
    )


def main() -> None:
    """Write the plan to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="digits.plan")
    arguments = parser.parse_args()
    plan = build_plan()
    print(f"{plan.save(arguments.out)}: {plan.manifest.parameter_count} parameters, digest {plan.digest}")


if __name__ == "__main__":
    main()
