"""Record what PyTorch computes, with the batch size left open: `torch.fx` graphs of core ATen operators."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._dynamo.source import ConstantSource
from torch._functorch._aot_autograd.functional_utils import from_fun, to_fun
from torch._subclasses.fake_tensor import FakeTensorMode
from torch._subclasses.functional_tensor import FunctionalTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.fx.traceback import preserve_node_meta
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only

from plans.authoring.composites import Composites
from plans.authoring.explaining import FIXED_BATCH, explained
from plans.authoring.places import Writes, here
from plans.errors import TraceError

__all__ = ["Shape", "capture", "unfused"]

Shape = tuple[tuple[int, ...], torch.dtype]
"""A tensor without data: its shape, -1 for the batch, and its dtype."""

_NOISY = ("torch.fx.experimental.symbolic_shapes", "torch._subclasses.fake_tensor")
_HINT = 7
"""What PyTorch takes for the batch size when a choice by size must be made; the choice itself is refused below."""


def capture(function: Callable[..., Any], arguments: Sequence[Sequence[Shape]]) -> fx.GraphModule:
    """Trace `function(*lists of tensors)` on tensors without data; nothing is computed and no memory is taken.

    Raises:
        TraceError: PyTorch could not trace it, or the result depends on the batch size or on values.
    """
    environment, writes = _Sizes(), Writes()
    mode = FakeTensorMode(shape_env=environment, allow_non_fake_inputs=True)
    batch = _open_size(environment)
    with _quiet(), mode, unfused(), preserve_node_meta(), Composites(), writes:
        lists = [[_fake(shape, batch) for shape in shapes] for shapes in arguments]
        try:
            module = _traced(function, lists)
        except TraceError:
            raise
        except Exception as error:
            raise TraceError(explained(error, writes.places)) from error
    if environment.replacements:
        raise TraceError(
            f"the model fixes the batch size ({environment.place}): {FIXED_BATCH}; or it treats examples one by one, "
            "or picks examples by a mask: multiply by the mask instead"
        )
    module.graph.eliminate_dead_code()
    return module


class _Sizes(ShapeEnv):  # type: ignore[misc]  # torch is not seen by mypy
    """Notes where the batch size was first taken to be a certain number."""

    place = ""

    def _set_replacement(self, *given: Any) -> None:
        self.place = self.place or here()
        super()._set_replacement(*given)


def _traced(function: Callable[..., Any], lists: Sequence[Sequence[torch.Tensor]]) -> fx.GraphModule:
    # each change in place becomes a new value, as ONNX knows no other; below autograd, as in torch.compile
    def functional(*given: Any) -> Any:
        with FunctionalTensorMode():
            results = function(*tree_map_only(torch.Tensor, to_fun, given))
        return tree_map_only(torch.Tensor, from_fun, results)

    recorded = make_fx(
        functional, decomposition_table=_decompositions(), tracing_mode="fake", record_stack_traces=True
    )
    return recorded(*lists)


def _decompositions() -> dict[Any, Callable[..., Any]]:
    """PyTorch's own definitions of operators by others, and of two norms that it counts as core."""
    norms = get_decompositions([torch.ops.aten.native_layer_norm, torch.ops.aten.native_group_norm])
    return {**core_aten_decompositions(), **norms}


def _open_size(environment: ShapeEnv) -> Any:
    source = ConstantSource("batch")
    symbol = environment.create_symbol(_HINT, source=source, dynamic_dim=DimDynamic.DYNAMIC, constraint_dim=None)
    return environment.create_symintnode(symbol, hint=_HINT, source=source)


def _fake(shape: Shape, batch: Any) -> torch.Tensor:
    dims, dtype = shape
    return torch.empty([batch if dim == -1 else dim for dim in dims], dtype=dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch logs each guard it adds and each shape it refuses; an author needs the error, not the log."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger, level in zip(loggers, (logging.ERROR, logging.CRITICAL), strict=True):
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def unfused() -> Iterator[None]:
    """Without kernels that have no definition in other operators, such as transformer layers' fast path."""
    mkldnn, fast = torch._C._get_mkldnn_enabled(), torch.backends.mha.get_fastpath_enabled()  # noqa: SLF001 - no public reader
    torch._C._set_mkldnn_enabled(False)  # noqa: SLF001 - no public writer
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch._C._set_mkldnn_enabled(mkldnn)  # noqa: SLF001 - no public writer
        torch.backends.mha.set_fastpath_enabled(fast)
