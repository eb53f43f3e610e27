"""Plans: PyTorch models as signed, plain ONNX that any peer can train, evaluate and query.

`trace` makes a plan, `lora` prepares a model for one: the two names here that need torch (`peerplan[author]`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from plans.bounded import BoundedExecutor
from plans.bundle import Plan, SignedPlan, load, open_signed
from plans.card import card
from plans.errors import (
    BundleError,
    CancelledError,
    ExecutionError,
    HarmfulPlanError,
    PlanError,
    TraceError,
    UnsafePlanError,
    UnusableDataError,
)
from plans.execute import Executor, Metrics, Progress, TrainResult
from plans.fields import Field
from plans.metrics import PerExample
from plans.optimizers import SGD, Adam, RMSprop
from plans.picture import picture
from plans.preflight import Preflight, StepCost, preflight
from plans.validate import validate
from plans.verification import verify

if TYPE_CHECKING:
    from plans.authoring.lora import lora
    from plans.authoring.trace import trace

__all__ = [
    "SGD",
    "Adam",
    "BoundedExecutor",
    "BundleError",
    "CancelledError",
    "ExecutionError",
    "Executor",
    "Field",
    "HarmfulPlanError",
    "Metrics",
    "PerExample",
    "Plan",
    "PlanError",
    "Preflight",
    "Progress",
    "RMSprop",
    "SignedPlan",
    "StepCost",
    "TraceError",
    "TrainResult",
    "UnsafePlanError",
    "UnusableDataError",
    "card",
    "load",
    "lora",
    "open_signed",
    "picture",
    "preflight",
    "trace",
    "validate",
    "verify",
]


def __getattr__(name: str) -> Any:
    """`trace` and `lora` on first use, so that nodes and signaling servers start without torch."""
    if name not in ("lora", "trace"):
        raise AttributeError(f"module 'plans' has no attribute {name!r}")
    try:
        found = getattr(import_module(f"plans.authoring.{name}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise TraceError(f"plans.{name} needs torch: pip install 'peerplan[author]'") from error
    return found
