"""`trace`: a PyTorch model, its loss and its optimizer become a plan of ordinary ONNX graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from plans.authoring.assembly import OPSET, evaluate_model, predict_model, train_model
from plans.authoring.capture import Shape, capture
from plans.authoring.judging import LossFunction, as_loss, as_metrics
from plans.authoring.keras_model import torch_module
from plans.authoring.lowering import count_draws
from plans.authoring.selfcheck import check_against_pytorch
from plans.authoring.stepping import Stepping
from plans.authoring.subject import Subject, is_local, subject_of, with_changing
from plans.authoring.vectors import Layout, size_of
from plans.bundle import Plan
from plans.errors import TraceError
from plans.fields import Field, as_fields
from plans.optimizers import Optimizer, as_optimizer
from plans.ports import RESERVED, Ports, evaluate_ports, predict_ports, train_ports
from protocol.encoding import digest_of
from protocol.manifest import (
    Blob,
    DataField,
    Function,
    Metric,
    ParameterTensor,
    PlanManifest,
    Port,
    Training,
)

if TYPE_CHECKING:
    from torch import nn

    from plans.metrics import PerExample

__all__ = ["trace"]

_TORCH_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "bool": torch.bool,
}


def trace(
    model: nn.Module,
    *,
    loss: str | LossFunction,
    optimizer: Optimizer | str,
    inputs: Mapping[str, object],
    targets: Mapping[str, object],
    name: str,
    version: str,
    metrics: Sequence[str | PerExample] = (),
    batch_size: int = 32,
    description: str = "",
    loss_bound: float = 100.0,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    proximal: float = 0.0,
    local: Sequence[str] = (),
    fast_convolutions: bool = True,
    check: bool | Mapping[str, object] = True,
) -> Plan:
    """Trace a model into a plan with the functions `train`, `evaluate` and `predict`.

    `inputs` and `targets` say what one example looks like, each a `Field` or an example tensor; the model is called
    with the inputs in that order, the loss as `loss(outputs, *targets)` giving the mean over the batch. `batch_size`
    and the optimizer's `lr` are defaults that the terms of a run may replace. The model itself is left as it was.

    `clip_norm` and `clip_value` bound each step's gradients; `proximal` is FedProx's mu, which pulls local training
    towards the checkpoint. `check` compares one step, evaluation and prediction of the finished plan with PyTorch, on
    random examples or on those given, arrays by field name [N, ...]; False leaves it out.

    Parameters whose names fit a pattern in `local`, such as "head.*", stay with each peer: it trains its own, from
    the values given here, and they are part of no model, update or sum.

    `fast_convolutions` lets training multiply less in convolutions of stride 1, where that takes less time: by
    Winograd's method, with rounding of about 4e-6 of a gradient instead of 1e-6, and more memory.

    Raises:
        TraceError: something in the model, loss, metrics or fields that cannot become plain ONNX, or a plan that
            does not compute what PyTorch does.
    """
    fields_in, fields_out = as_fields(inputs, what="inputs"), as_fields(targets, what="targets")
    _check_names([*fields_in, *fields_out])
    stepping = Stepping(
        optimizer=as_optimizer(optimizer), clip_norm=clip_norm, clip_value=clip_value, proximal=proximal
    )
    module = torch_module(model)
    subject = subject_of(
        module,
        input_count=len(fields_in),
        loss=as_loss(loss),
        metrics=as_metrics(metrics),
        stepping=stepping,
        local=local,
    )
    was_training = module.training
    try:
        tracing = _Tracing(subject, fields_in, local, fast_convolutions=fast_convolutions)
        bounded = _bounded(fields_out, tracing.output) if loss == "cross_entropy" else fields_out
        plan = tracing.plan(
            _listed(bounded),
            name=name,
            version=version,
            batch_size=batch_size,
            description=description,
            loss_bound=loss_bound,
        )
        if check is not False:
            tracing.check(plan, None if check is True else check)
        return plan
    finally:
        module.train(was_training)


class _Tracing:
    """One trace: sizes are worked out once, then each function is captured and written."""

    def __init__(
        self, subject: Subject, inputs: Mapping[str, Field], local: Sequence[str], *, fast_convolutions: bool
    ) -> None:
        self.fast_convolutions = fast_convolutions
        self.local = {name: p for name, p in subject.parameters.items() if is_local(name, local)}
        self.inputs = tuple(_listed(inputs))
        self.counters: set[str] = set()
        self.subject = subject = self._with_changing(subject)
        self.layout = _layout(subject)
        self.parameter_count = size_of(self.layout.parameters)
        self.optimizer_count = size_of(self.layout.optimizer_state)
        self.counts = {"buffer_count": size_of(self.layout.buffers), "frozen_count": size_of(self.layout.frozen)}
        self.metric_count = 1 + len(subject.metrics)
        self.draws = 0
        subject.model.eval()
        self.forward = capture(subject.predict, [*self._vectors(), _batches(self.inputs)])
        self.output = _output_port(self.forward)

    def _with_changing(self, subject: Subject) -> Subject:
        """Find out which buffers training changes by looking at it, without data."""
        if not any(True for _ in subject.model.buffers()):
            return subject
        layout, changed = _layout(subject), set[str]()

        def forward(parameters: Any, frozen: Any, data: Any) -> Any:
            outputs, _, found = subject.call(parameters, [], frozen, data)
            changed.update(found)
            return outputs

        subject.model.train()
        capture(forward, [_floats(layout.parameters), _floats(layout.frozen), _batches(self.inputs)])
        found = with_changing(subject, changed)
        self.counters = changed.intersection(found.frozen)
        return found

    def _check_counters(self, step: torch.fx.GraphModule) -> None:
        """Changed whole numbers are forgotten after each step, so nothing may depend on them."""
        inputs = [node for node in step.graph.nodes if node.op == "placeholder"]
        layout = self.layout
        before = len(layout.parameters) + len(layout.optimizer_state) + len(layout.buffers)
        for at, name in enumerate(self.subject.frozen):
            if name in self.counters and inputs[before + at].users:
                raise TraceError(
                    f"the model counts in its buffer {name} and reads the count; whole numbers have no mean over "
                    "peers: keep float32 statistics instead (BatchNorm needs a momentum)"
                )

    def _vectors(self) -> list[list[Shape]]:
        layout = self.layout
        return [_floats(layout.parameters), _floats(layout.buffers), _floats(layout.frozen)]

    def check(self, plan: Plan, data: Mapping[str, object] | None) -> None:
        """Compare the plan with PyTorch."""
        check_against_pytorch(plan, self.subject, self.layout, draws=self.draws, data=data)

    def plan(
        self,
        targets: Sequence[DataField],
        *,
        name: str,
        version: str,
        batch_size: int,
        description: str,
        loss_bound: float,
    ) -> Plan:
        """Capture and write every function, and list them in a manifest."""
        fields = [*self.inputs, *targets]
        graphs, functions = {}, {}
        written = {
            "train": self._train(fields, batch_size),
            "evaluate": self._evaluate(fields),
            "predict": self._predict(),
        }
        for kind, (graph, (entering, leaving)) in written.items():
            graphs[kind] = graph
            functions[kind] = Function(graph=digest_of(graph), inputs=entering, outputs=leaving)
        vectors = {
            "theta": _packed({n: p for n, p in self.subject.parameters.items() if n not in self.local}),
            "local": _packed(self.local),
            "buffers": _packed(self.subject.buffers),
            "frozen": _packed(self.subject.frozen),
        }
        initial = {role: digest_of(data) for role, data in vectors.items() if data}
        blobs = {digest_of(data): (data, role) for role, data in (graphs | vectors).items() if data}
        manifest = PlanManifest(
            name=name,
            version=version,
            description=description,
            opset=OPSET,
            inputs=self.inputs,
            targets=tuple(targets),
            parameters=_listed_parameters(self.subject.parameters),
            parameter_count=self.parameter_count,
            optimizer_count=self.optimizer_count,
            buffer_count=self.counts["buffer_count"],
            local_count=sum(parameter.numel() for parameter in self.local.values()),
            metrics=(
                Metric(name="loss", bound=loss_bound),
                *(Metric(name=metric.name, bound=metric.bound) for metric in self.subject.metrics),
            ),
            training=Training(
                optimizer=type(self.subject.stepping.optimizer).__name__.lower(),
                learning_rate=self.subject.stepping.optimizer.lr,
                batch_size=batch_size,
            ),
            functions=functions,  # type: ignore[arg-type]
            initial=initial,  # type: ignore[arg-type]
            blobs=tuple(Blob(digest=digest, size=len(data), role=role) for digest, (data, role) in blobs.items()),
        )
        return Plan.of(manifest, {digest: data for digest, (data, _) in blobs.items()})

    def _train(self, fields: Sequence[DataField], batch_size: int) -> tuple[bytes, Ports]:
        self.subject.model.train()
        parameters, *fixed = self._vectors()
        state, rate = _floats(self.layout.optimizer_state), [((), torch.float32)]
        step = capture(
            lambda p, s, b, f, d, rates: self.subject.train_step(p, s, b, f, d, rates[0]),
            [parameters, state, *fixed, _batches(fields), rate],
        )
        self._check_counters(step)
        self.draws = count_draws(step)
        ports = train_ports(
            fields,
            parameter_count=self.parameter_count,
            optimizer_count=self.optimizer_count,
            metric_count=self.metric_count,
            **self.counts,
        )
        examples = batch_size if self.fast_convolutions else None
        return train_model(step, self.layout, *ports, examples=examples), ports

    def _evaluate(self, fields: Sequence[DataField]) -> tuple[bytes, Ports]:
        self.subject.model.eval()
        ports = evaluate_ports(
            fields, parameter_count=self.parameter_count, metric_count=self.metric_count, **self.counts
        )
        step = capture(self.subject.evaluate_step, [*self._vectors(), _batches(fields)])
        return evaluate_model(step, self.layout, *ports), ports

    def _predict(self) -> tuple[bytes, Ports]:
        ports = predict_ports(self.inputs, self.output, parameter_count=self.parameter_count, **self.counts)
        return predict_model(self.forward, self.layout, *ports), ports


def _layout(subject: Subject) -> Layout:
    shapes = [tuple(tensor.shape) for tensor in subject.parameters.values()]
    buffers, frozen = (
        [tuple(tensor.shape) for tensor in tensors.values()] for tensors in (subject.buffers, subject.frozen)
    )
    return Layout(shapes, subject.stepping.state_shapes(shapes), buffers, frozen)


def _output_port(forward: torch.fx.GraphModule) -> Port:
    found: Any = next(node for node in forward.graph.nodes if node.op == "output").args[0]
    if isinstance(found, list | tuple):
        (found,) = found
    value = found.meta["val"]
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in _TORCH_DTYPES:
        raise TraceError(f"the model gives {dtype}, expected one of {', '.join(_TORCH_DTYPES)}")
    rest = value.shape[1:]
    if isinstance(value.shape[0], int) or not all(isinstance(dim, int) for dim in rest):
        raise TraceError(
            f"the model gives shape {list(value.shape)}, expected one row per example and fixed sizes after"
        )
    return Port(name="outputs", dtype=dtype, shape=(-1, *rest))  # type: ignore[arg-type]


def _bounded(targets: Mapping[str, Field], output: Port) -> dict[str, Field]:
    """Labels of "cross_entropy" lie below the number of classes, which the model's output tells."""
    if len(targets) != 1:
        raise TraceError(f"loss 'cross_entropy' reads one target, got {len(targets)}: {', '.join(targets)}")
    (name, field), *_ = targets.items()
    if field.dtype != "int64":
        raise TraceError(f"loss 'cross_entropy' reads int64 labels, target {name!r} is {field.dtype}")
    if len(output.shape) != len(field.shape) + 2:
        raise TraceError(
            f"loss 'cross_entropy' needs outputs [batch, classes, *{list(field.shape)}], got {list(output.shape)}"
        )
    return {name: Field(field.dtype, field.shape, below=output.shape[1])}


def _check_names(names: Sequence[str]) -> None:
    taken = RESERVED.intersection(names)
    if taken:
        raise TraceError(f"data field {', '.join(sorted(taken))}: the name is taken by a port; choose another")
    if len(set(names)) != len(names):
        raise TraceError(f"data fields repeat a name: {', '.join(names)}")


def _listed(fields: Mapping[str, Field]) -> list[DataField]:
    return [
        DataField(name=name, dtype=field.dtype, shape=field.shape, below=field.below)
        for name, field in fields.items()
    ]


def _listed_parameters(parameters: Mapping[str, torch.Tensor]) -> tuple[ParameterTensor, ...]:
    listed, at = [], 0
    for name, tensor in parameters.items():
        listed.append(ParameterTensor(name=name, shape=tuple(tensor.shape), offset=at))
        at += tensor.numel()
    return tuple(listed)


def _packed(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Little-endian float32, one tensor after another."""
    flat = (tensor.detach().cpu().to(torch.float32).contiguous().numpy() for tensor in tensors.values())
    return b"".join(array.astype("<f4", copy=False).data.cast("B") for array in flat)


def _floats(shapes: Sequence[tuple[int, ...]]) -> list[Shape]:
    return [(tuple(dims), torch.float32) for dims in shapes]


def _batches(fields: Sequence[DataField]) -> list[Shape]:
    return [((-1, *field.shape), _TORCH_DTYPES[field.dtype]) for field in fields]
