"""What every benchmark shares: options, a description of the machine, repeats with median and spread, the report."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from protocol.secagg.passes import COMPILED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["Timing", "at_least", "interleaved", "machine", "options_of", "print_report", "summary", "timed"]

_PACKAGES = ("numpy", "torch", "onnx", "onnxruntime", "websockets", "aiortc", "cryptography")


class Timing(TypedDict):
    """Seconds (or whatever unit the caller measured): median, 10th and 90th percentile, number of repeats."""

    median: float
    spread: list[float]
    repeats: int


def options_of(module_doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows a module's words as they are written there, with the option that all benchmarks have."""
    parser = argparse.ArgumentParser(description=module_doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object: name, machine, settings, figures")
    return parser


def at_least(smallest: int) -> Callable[[str], int]:
    """An option's type: whole numbers from `smallest` on."""

    def convert(said: str) -> int:
        number = int(said)
        if number < smallest:
            raise argparse.ArgumentTypeError(f"expected {smallest} or more, got {number}")
        return number

    convert.__name__ = "number"  # argparse puts it into its own errors
    return convert


def print_report(
    name: str,
    *,
    settings: Mapping[str, Any],
    figures: dict[str, Any],
    as_json: bool,
    lines: Callable[[dict[str, Any]], Iterable[str]] | None = None,
) -> None:
    """Print one JSON object on a line, or what `lines` says of the figures; without it the object again, indented."""
    if not as_json and lines is not None:
        for line in lines(figures):
            print(line)
        return
    found = {"name": name, "machine": machine(), "settings": settings, "figures": figures}
    print(json.dumps(found, indent=None if as_json else 2), flush=True)


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
