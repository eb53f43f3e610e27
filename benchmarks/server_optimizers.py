"""What applying a sum costs a peer: `python -m benchmarks.server_optimizers [--json] [--repeats N]`.

One thread, a million parameters, an aggregate of random sums over ten survivors. The optimizers take turns, so that
ratios hold on a busy machine. "Digest" is the SHA-256 of the whole model, moments included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, get_args

import numpy as np

from benchmarks.measure import at_least, interleaved, options_of, print_report
from protocol.secagg.apply import Aggregate, apply_aggregate, model_digest
from protocol.server_optimizer import Kind, ServerOptimizer, initial_moments

PARAMETERS, SURVIVORS, LARGEST = 1_000_000, 10, 2**15 - 1


def measure(repeats: int) -> dict[str, dict[str, Any]]:
    """The figures of each server optimizer."""
    generator = np.random.default_rng(0)
    limit = SURVIVORS * LARGEST
    sums = generator.integers(-limit, limit, PARAMETERS + 2, dtype=np.int32)
    sums[PARAMETERS] = limit
    aggregate = Aggregate(sums=sums, survivors=frozenset(range(SURVIVORS)))
    theta = generator.normal(0, 0.1, PARAMETERS).astype(np.float32)
    models: dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]] = {}
    applying: dict[str, Callable[[], object]] = {}
    for kind in get_args(Kind):
        optimizer = ServerOptimizer(kind=kind)
        moments = [np.full(PARAMETERS, value, np.float32) for value in initial_moments(optimizer)]
        models[kind] = np.concatenate([theta, *moments])
        applying[kind] = partial(
            apply_aggregate, models[kind], aggregate, clip=0.1, largest_value=LARGEST, optimizer=optimizer
        )
    applied = interleaved(applying, repeats)
    hashed = interleaved({kind: partial(model_digest, model) for kind, model in models.items()}, repeats)
    return {
        kind: {
            "model_bytes": models[kind].nbytes,
            "apply_s": applied[kind],
            "digest_s": hashed[kind],
            "times_fedavg": round(applied[kind]["median"] / applied["fedavg"]["median"], 2),
        }
        for kind in models
    }


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """One per server optimizer, for people."""
    for kind, found in figures.items():
        applied, hashed = found["apply_s"]["median"], found["digest_s"]["median"]
        yield (
            f"{kind:<8} apply {1000 * applied:6.2f} ms ({found['times_fedavg']} times fedavg)  "
            f"digest {1000 * hashed:6.2f} ms  model {found['model_bytes']:>10,} bytes"
        )


def main() -> None:
    """Print one JSON object, or a line per server optimizer."""
    parser = options_of(__doc__)
    parser.add_argument("--repeats", type=at_least(1), default=20, help="default: %(default)s")
    options = parser.parse_args()
    figures = measure(options.repeats)
    settings = {"parameters": PARAMETERS, "survivors": SURVIVORS, "threads": 1}
    print_report("server_optimizers", settings=settings, figures=figures, as_json=options.json, lines=lines)


if __name__ == "__main__":
    main()
