"""Tabular regression: how far diabetes goes on within a year, from ten measurements of a patient.

`python -m examples.diabetes --out diabetes.plan` writes the plan; `--try` trains it here first. The data is
scikit-learn's (Efron et al., 2004; 442 patients), where it comes standardised.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

import plans

if TYPE_CHECKING:
    from plans import Plan

SCALE = 100.0
"""Targets are in hundreds, so that losses and steps are near one."""


def build_plan(seed: int = 0) -> Plan:
    """Trace the plan: BatchNorm's statistics travel with the parameters, Dropout draws from each node's seed."""
    import torch  # noqa: PLC0415 - a node that imports this file for its name needs no torch
    from torch import nn  # noqa: PLC0415

    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))
    return plans.trace(
        model,
        loss="mse",
        optimizer=plans.Adam(lr=0.01, decoupled=True, weight_decay=0.01),
        inputs={"measurements": plans.Field("float32", (10,))},
        targets={"progression": plans.Field("float32")},
        batch_size=16,
        clip_norm=5.0,
        name="diabetes",
        version="1",
        description="Progression of diabetes in a year, in hundreds, from ten standardised measurements.",
    )


def load() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Training and held-out patients, as fields of the plan."""
    from sklearn.datasets import load_diabetes  # noqa: PLC0415 - the extra peerplan[demo]

    x, y = load_diabetes(return_X_y=True)
    # scikit-learn scales each column to a length of one
    data = {"measurements": (x * len(x) ** 0.5).astype(np.float32), "progression": (y / SCALE).astype(np.float32)}
    held_out = np.arange(len(x)) % 5 == 0
    return {name: v[~held_out] for name, v in data.items()}, {name: v[held_out] for name, v in data.items()}


def main() -> None:
    """Write the plan, and train it here if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="diabetes.plan")
    parser.add_argument("--try", action="store_true", dest="attempt")
    arguments = parser.parse_args()
    plan = build_plan()
    print(f"{plan.save(arguments.out)}: {plan.manifest.parameter_count} parameters, digest {plan.digest}")
    if arguments.attempt:
        train, held_out = load()
        executor, start = plans.Executor(plan), [plan.initial(r) for r in ("theta", "optimizer_state", "buffers")]
        done = executor.train(*start, train, batch_size=16, epochs=20, learning_rate=0.01, seed=b"try")
        error = executor.evaluate(done.theta, done.buffers, held_out).mean("loss") ** 0.5 * SCALE
        print(f"held-out error {error:.1f} (always guessing the mean: {held_out['progression'].std() * SCALE:.1f})")


if __name__ == "__main__":
    main()
