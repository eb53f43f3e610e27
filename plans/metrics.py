"""Metrics of an author's own: a number per example, summed over examples and, masked, over peers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from plans.errors import TraceError

__all__ = ["PerExample"]


@dataclass(frozen=True)
class PerExample:
    """`function(outputs, *targets)` gives a tensor [batch]: one number per example, at most `bound`.

    Nodes clip what is larger when they mask the sum, so `bound` is a promise about what leaves a device.
    """

    name: str
    function: Callable[..., Any]
    bound: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bound) and 0 < self.bound <= 1e6):
            raise TraceError(f"metric {self.name}: bound={self.bound}, expected 0 < bound <= 1000000")
