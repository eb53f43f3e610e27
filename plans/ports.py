"""The ports of each function (spec 05 §4): one order for every language, derived from the manifest alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.manifest import Port

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from protocol.manifest import DataField

__all__ = ["RESERVED", "Ports", "evaluate_ports", "predict_ports", "train_ports"]

RESERVED = frozenset(
    {
        "batches",
        "buffers",
        "frozen",
        "learning_rates",
        "metrics",
        "next_buffers",
        "next_optimizer_state",
        "next_theta",
        "optimizer_state",
        "outputs",
        "seed",
        "theta",
    }
)
"""Port names that a data field cannot have."""

Ports = tuple[tuple[Port, ...], tuple[Port, ...]]
"""Inputs, then outputs."""


def train_ports(
    fields: Sequence[DataField],
    *,
    parameter_count: int,
    optimizer_count: int,
    buffer_count: int,
    metric_count: int,
    frozen_count: int = 0,
) -> Ports:
    """Inputs and outputs of `train`: a stretch of S steps over N examples.

    `batches` holds indexes of examples, -1 for none; `metrics` has one row per step: the number of examples, then the
    sum of each metric over them.
    """
    vectors = {"theta": parameter_count, "optimizer_state": optimizer_count, "buffers": buffer_count}
    inputs = (
        *(_vector(name, size) for name, size in vectors.items()),
        *_frozen(frozen_count),
        *_examples(fields),
        Port(name="batches", dtype="int64", shape=(-1, -1)),
        Port(name="learning_rates", dtype="float32", shape=(-1,)),
        Port(name="seed", dtype="int64", shape=()),
    )
    outputs = (*(_vector(f"next_{name}", size) for name, size in vectors.items()), _metrics(metric_count))
    return inputs, outputs


def evaluate_ports(
    fields: Sequence[DataField], *, parameter_count: int, buffer_count: int, metric_count: int, frozen_count: int = 0
) -> Ports:
    """Inputs and outputs of `evaluate`: metrics of S batches over N examples."""
    inputs = (
        _vector("theta", parameter_count),
        _vector("buffers", buffer_count),
        *_frozen(frozen_count),
        *_examples(fields),
        Port(name="batches", dtype="int64", shape=(-1, -1)),
    )
    return inputs, (_metrics(metric_count),)


def predict_ports(
    inputs: Sequence[DataField], output: Port, *, parameter_count: int, buffer_count: int, frozen_count: int = 0
) -> Ports:
    """Inputs and outputs of `predict`: the model's outputs for N examples."""
    vectors = (_vector("theta", parameter_count), _vector("buffers", buffer_count), *_frozen(frozen_count))
    return (*vectors, *_examples(inputs)), (output,)


def _frozen(count: int) -> tuple[Port, ...]:
    """A plan without frozen values has no port for them, so that its graphs stay as small as they can be."""
    return (_vector("frozen", count),) if count else ()


def _vector(name: str, size: int) -> Port:
    return Port(name=name, dtype="float32", shape=(size,))


def _examples(fields: Iterable[DataField]) -> Iterable[Port]:
    return (Port(name=field.name, dtype=field.dtype, shape=(-1, *field.shape)) for field in fields)


def _metrics(count: int) -> Port:
    return Port(name="metrics", dtype="float32", shape=(-1, 1 + count))
