"""What every benchmark shares: a description of the machine, and repeats with median and spread."""

from __future__ import annotations

import os
import platform
import statistics
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from protocol.secagg.passes import COMPILED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Timing", "interleaved", "machine", "summary", "timed"]

_PACKAGES = ("numpy", "torch", "onnx", "onnxruntime", "websockets", "aiortc", "cryptography")


class Timing(TypedDict):
    """Seconds (or whatever unit the caller measured): median, 10th and 90th percentile, number of repeats."""

    median: float
    spread: list[float]
    repeats: int


def machine() -> dict[str, object]:
    """Processor, cores this process may use, memory in GiB, Python, system, versions of what is measured, and whether
    a round's passes over vectors are compiled.
    """
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": _versions(),
        "passes": "compiled" if COMPILED else "numpy",
    }


def timed(fn: Callable[[], object], repeats: int, *, warm_up: int = 1) -> Timing:
    """Seconds of `fn()` by the monotonic clock: `warm_up` calls that do not count, then `repeats` that do."""
    return interleaved({"only": fn}, repeats, warm_up=warm_up)["only"]


def interleaved(fns: dict[str, Callable[[], object]], repeats: int, *, warm_up: int = 1) -> dict[str, Timing]:
    """Time several functions in turn, so that a machine's slow spell hits all of them alike."""
    for fn in fns.values():
        for _ in range(warm_up):
            fn()
    samples: dict[str, list[float]] = {name: [] for name in fns}
    for _ in range(repeats):
        for name, fn in fns.items():
            began = time.perf_counter()
            fn()
            samples[name].append(time.perf_counter() - began)
    return {name: summary(values) for name, values in samples.items()}


def summary(values: Sequence[float]) -> Timing:
    """Median and 10th to 90th percentile (linear between samples) of at least one sample.

    Raises:
        ValueError: no samples.
    """
    if not values:
        raise ValueError("expected at least 1 sample, got 0")
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "spread": [_percentile(ordered, 0.1), _percentile(ordered, 0.9)],
        "repeats": len(ordered),
    }


def _percentile(ordered: Sequence[float], share: float) -> float:
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
