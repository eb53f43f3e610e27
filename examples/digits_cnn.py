"""Handwritten digits by convolutions: 8x8 images, a CNN of 9,930 parameters.

`python -m examples.digits_cnn --out digits-cnn.plan` writes the plan; `peerplan demo --example digits_cnn` trains it
among peers.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import plans

if TYPE_CHECKING:
    from plans import Plan


def build_plan(seed: int = 0) -> Plan:
    """Trace the plan; torch is needed here and nowhere else."""
    import torch  # noqa: PLC0415 - a node that imports this file for its name needs no torch
    from torch import nn  # noqa: PLC0415

    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )
    return plans.trace(
        model,
        loss="cross_entropy",
        optimizer=plans.SGD(lr=0.1, momentum=0.9),
        inputs={"image": plans.Field("float32", (1, 8, 8))},
        targets={"label": plans.Field("int64")},
        metrics=["accuracy"],
        batch_size=16,
        name="digits-cnn",
        version="1",
        description="Which digit an 8x8 image shows, by convolutions; pixels scaled to 0..1.",
    )


def main() -> None:
    """Write the plan to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="digits-cnn.plan")
    arguments = parser.parse_args()
    plan = build_plan()
    print(f"{plan.save(arguments.out)}: {plan.manifest.parameter_count} parameters, digest {plan.digest}")


if __name__ == "__main__":
    main()
