"""What applying a sum costs a peer: `python -m benchmarks.server_optimizers [--json] [--repeats N]`.

One thread, one million parameters, an aggregate of random sums over ten survivors. The optimizers take turns, so that
ratios hold on a busy machine. "Digest" is the SHA-256 of the whole model, moments included.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import get_args

import numpy as np

from benchmarks.measure import interleaved, machine
from protocol.secagg.apply import Aggregate, apply_aggregate, model_digest
from protocol.server_optimizer import Kind, ServerOptimizer, initial_moments

PARAMETERS, SURVIVORS, LARGEST = 1_000_000, 10, 2**15 - 1


def measure(repeats: int) -> list[dict[str, object]]:
    """One row per server optimizer."""
    generator = np.random.default_rng(0)
    limit = SURVIVORS * LARGEST
    sums = generator.integers(-limit, limit, PARAMETERS + 2, dtype=np.int32)
    sums[PARAMETERS] = limit
    aggregate = Aggregate(sums=sums, survivors=frozenset(range(SURVIVORS)))
    theta = generator.normal(0, 0.1, PARAMETERS).astype(np.float32)
    models, applying = {}, {}
    for kind in get_args(Kind):
        optimizer = ServerOptimizer(kind=kind)
        moments = [np.full(PARAMETERS, value, np.float32) for value in initial_moments(optimizer)]
        models[kind] = np.concatenate([theta, *moments])
        applying[kind] = partial(
            apply_aggregate, models[kind], aggregate, clip=0.1, largest_value=LARGEST, optimizer=optimizer
        )
    applied = interleaved(applying, repeats)
    hashed = interleaved({kind: partial(model_digest, model) for kind, model in models.items()}, repeats)
    return [
        {
            "optimizer": kind,
            "parameters": PARAMETERS,
            "model_bytes": models[kind].nbytes,
            "apply_s": applied[kind],
            "digest_s": hashed[kind],
            "times_fedavg": round(applied[kind]["median"] / applied["fedavg"]["median"], 2),
        }
        for kind in models
    ]


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description="Cost of a server optimizer for one million parameters")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    rows = measure(options.repeats)
    if options.json:
        print(json.dumps({"benchmark": "server_optimizers", "machine": machine(), "rows": rows}, indent=1))
        return 0
    for row in rows:
        applied, hashed = row["apply_s"]["median"], row["digest_s"]["median"]  # type: ignore[index]  # built above
        print(
            f"{row['optimizer']:<8} apply {1000 * applied:6.2f} ms ({row['times_fedavg']} times fedavg)  "
            f"digest {1000 * hashed:6.2f} ms  model {row['model_bytes']:>10,} bytes"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
