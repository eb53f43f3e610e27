"""One training step, batch 32, one thread: a plan's Loop in onnxruntime and in onnxruntime-web.

The latter is WebAssembly in Node.js. `python -m benchmarks.plan_step_web [--json] [--models NAME ...] [--repeats N]`
gives seconds per step. The two are timed in turn, and it is told how far apart they end. Needs Node.js 20 and
`make js`.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import plans
from benchmarks.measure import at_least, options_of, print_report, summary
from benchmarks.plan_step import BATCH, EXAMPLES, MODELS, STRETCH
from plans.onnx_runtime import onnxruntime

PACKAGE = Path(__file__).resolve().parents[1] / "mobile_stubs" / "js"

Feeds = dict[str, np.ndarray[Any, Any]]


class Web:
    """A Node.js process that holds one graph and its inputs."""

    def __init__(self, graph: bytes, feeds: Feeds) -> None:
        self._process = subprocess.Popen(
            ["node", "bench/plan-step.mjs"], cwd=PACKAGE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        tensors = {
            name: {"dtype": str(value.dtype), "shape": value.shape, "data": _base64(value.tobytes())}
            for name, value in feeds.items()
        }
        self._say(json.dumps({"graph": _base64(graph), "feeds": tensors}))

    def call(self) -> float:
        """Seconds of one call."""
        return float(self._ask("time")["seconds"])

    def theta(self) -> np.ndarray[Any, Any]:
        """The parameters after one call."""
        return np.frombuffer(base64.b64decode(self._ask("theta")["theta"]), np.float32)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _ask(self, line: str) -> Any:
        self._say(line)
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def measure(name: str, repeats: int) -> dict[str, Any]:
    """Seconds per step of both, their ratio, and the largest difference of a parameter after 32 steps."""
    build, shape = MODELS[name]
    torch.manual_seed(0)
    plan = plans.trace(
        build(),
        loss="cross_entropy",
        optimizer=plans.SGD(lr=0.01),
        inputs={"x": plans.Field("float32", shape)},
        targets={"y": plans.Field("int64")},
        metrics=["accuracy"],
        name="benchmark",
        version="1",
    )
    feeds = _feeds(plan, shape)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    graph = plan.graph("train")
    native = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    web = Web(graph, feeds)
    try:
        expected = native.run(["next_theta"], feeds)[0]
        difference = float(np.abs(web.theta() - expected).max())
        seconds: dict[str, list[float]] = {"onnxruntime": [], "onnxruntime_web": []}
        for _ in range(repeats):
            began = time.perf_counter()
            native.run(None, feeds)
            seconds["onnxruntime"].append((time.perf_counter() - began) / STRETCH)
            seconds["onnxruntime_web"].append(web.call() / STRETCH)
    finally:
        web.close()
    timings = {way: summary(values) for way, values in seconds.items()}
    ratio = timings["onnxruntime_web"]["median"] / timings["onnxruntime"]["median"]
    return {"seconds_per_step": timings, "web_over_native": round(ratio, 2), "largest_difference": difference}


def _feeds(plan: plans.Plan, shape: tuple[int, ...]) -> Feeds:
    rng = np.random.default_rng(0)
    return {
        "theta": plan.initial("theta"),
        "optimizer_state": plan.initial("optimizer_state"),
        "buffers": plan.initial("buffers"),
        "x": rng.standard_normal((EXAMPLES, *shape)).astype(np.float32),
        "y": rng.integers(0, 10, EXAMPLES),
        "batches": rng.permutation(EXAMPLES)[: BATCH * STRETCH].reshape(STRETCH, BATCH),
        "learning_rates": np.full(STRETCH, 0.01, np.float32),
        "seed": np.array(1, np.int64),
    }


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """One per model, for people."""
    for name, found in figures.items():
        times = ", ".join(f"{way} {t['median'] * 1e3:.3f} ms" for way, t in found["seconds_per_step"].items())
        yield f"{name}: {times}, ratio {found['web_over_native']}, differ by {found['largest_difference']:.1e}"


def main() -> None:
    """Print one JSON object, or a line per model."""
    parser = options_of(__doc__)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), help="all by default")
    parser.add_argument("--repeats", type=at_least(1), default=15, help="default: %(default)s")
    options = parser.parse_args()
    subprocess.run(["node", "build.mjs"], cwd=PACKAGE, check=True)
    figures = {name: measure(name, options.repeats) for name in options.models}
    settings = {"batch": BATCH, "steps_per_call": STRETCH, "threads": 1, "optimizer": "SGD"}
    print_report("plan_step_web", settings=settings, figures=figures, as_json=options.json, lines=lines)


if __name__ == "__main__":
    main()
