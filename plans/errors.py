"""Every error this package raises, as one tree.

PlanError
├── TraceError           a model, loss, metric or optimizer that cannot become plain ONNX
├── BundleError          a directory or .plan file that is no bundle, or whose blobs are not what the manifest names
├── UnsafePlanError      a plan with a graph that no node runs: op, size, port or nesting outside the rules
├── UnusableDataError    data that does not fit the plan, or that holds NaN, infinity or labels out of range
├── ExecutionError       ONNX Runtime refused or failed to run a graph
│   └── HarmfulPlanError a plan that took more memory than it may, or broke the process it ran in
└── CancelledError       the caller stopped a training on its way

Signatures, manifests and envelopes raise the errors of `protocol.errors`.
"""

from __future__ import annotations

__all__ = [
    "BundleError",
    "CancelledError",
    "ExecutionError",
    "HarmfulPlanError",
    "PlanError",
    "TraceError",
    "UnsafePlanError",
    "UnusableDataError",
]


class PlanError(Exception):
    """Base of all errors of this package. `code` is the wire code listed in spec/errors.md."""

    code = "plan-error"


class TraceError(PlanError):
    """A model, loss, metric or optimizer that cannot become plain ONNX; says which and what to use instead."""

    code = "plan-untraceable"


class BundleError(PlanError):
    """Bytes on disk that are no bundle, or blobs that are not what the manifest names."""

    code = "bad-bundle"


class UnsafePlanError(PlanError):
    """A plan with a graph that no node runs."""

    code = "unsafe-plan"


class UnusableDataError(PlanError):
    """Data that does not fit the plan, or that holds values the plan cannot read."""

    code = "unusable-data"


class ExecutionError(PlanError):
    """ONNX Runtime refused a graph or failed while it ran."""

    code = "execution-failed"


class HarmfulPlanError(ExecutionError):
    """A plan that took more memory than its process may, or broke that process; trying again is no use."""

    code = "harmful-plan"


class CancelledError(PlanError):
    """The caller stopped a training between two calls; nothing of it is kept."""

    code = "cancelled"
