"""Where in a model something happened, for errors that its author can act on: the module, and the line."""

from __future__ import annotations

import random
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import fx, nn
from torch.fx.traceback import annotate, get_current_meta
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from plans.errors import TraceError

__all__ = ["Writes", "here", "inside_modules", "of_error", "of_node"]

_MODULE = "module"
_OURS = str(Path(__file__).parents[1])
_ASSIGNING = frozenset({"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__", "__imatmul__"})


class Writes(TorchFunctionMode):  # type: ignore[misc]  # torch is not seen by mypy
    """Within it, `places` gets the place of every call in a module that changes a tensor instead of making one."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        writes = name in _ASSIGNING or (name.endswith("_") and not name.endswith("__"))
        if writes and _annotated(get_current_meta()):
            self.places.append(here())
        return function(*args, **(kwargs or {}))


@contextmanager
def inside_modules(model: nn.Module) -> Iterator[None]:
    """While the model runs, traced operators and errors learn which module they come from.

    Raises:
        TraceError: a module draws numbers from Python's or NumPy's generator, which would be the same at every step.
    """
    names = {module: name for name, module in model.named_modules()}
    inside: list[tuple[nn.Module, AbstractContextManager[None], object]] = []

    def enter(module: nn.Module, _inputs: Any) -> None:
        place = annotate({_MODULE: _described(names, module)}) if module in names else annotate({})
        place.__enter__()
        inside.append((module, place, _foreign_randomness()))

    def leave(_module: nn.Module, _inputs: Any, _outputs: Any) -> None:
        module, place, randomness = inside.pop()
        place.__exit__(None, None, None)
        if randomness != _foreign_randomness():
            forward = module.forward.__code__
            raise TraceError(
                f"random or numpy.random is called {_described(names, module)} "
                f'(File "{forward.co_filename}", line {forward.co_firstlineno}): a plan would keep the number that '
                "came up while it was traced; use torch.rand or nn.Dropout, which draw anew at every step"
            )

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        yield
    except Exception as error:
        found = next((module for module, *_ in reversed(inside) if module in names), model)
        error.add_note(_described(names, found))
        raise
    finally:
        for _, place, _ in reversed(inside):
            place.__exit__(None, None, None)
        for handle in handles:
            handle.remove()


def here() -> str:
    """The module and the author's line that are running."""
    return _joined([_annotated(get_current_meta()), *_lines(traceback.extract_stack())])


def of_error(error: Exception) -> str:
    """The module and the author's line that an error came from; empty where neither is known."""
    return _joined([*getattr(error, "__notes__", []), *_lines(traceback.extract_tb(error.__traceback__))])


def of_node(node: fx.Node) -> str:
    """The module and the author's line that a traced operator came from, as far as PyTorch noted them."""
    trace = node.meta.get("stack_trace") or ""
    lines = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    own = [line for line in lines if "/torch/" not in line and _OURS not in line]
    return _joined([_annotated(node.meta), *own[-1:]])


def _annotated(meta: dict[str, Any]) -> str:
    return str((meta.get("custom") or {}).get(_MODULE, ""))


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(part for part in parts if part)


def _described(names: dict[nn.Module, str], module: nn.Module) -> str:
    name = names.get(module)
    return f"in module {name}, a {type(module).__name__}" if name else f"in the model, a {type(module).__name__}"


def _lines(frames: Sequence[traceback.FrameSummary]) -> list[str]:
    """The innermost line that is neither PyTorch's nor ours."""
    own = [
        frame
        for frame in frames
        if "/torch/" not in frame.filename.replace("\\", "/") and not frame.filename.startswith((_OURS, "<"))
    ]
    return [f'File "{own[-1].filename}", line {own[-1].lineno}'] if own else []


def _foreign_randomness() -> object:
    """The states of the generators that are no part of PyTorch."""
    _, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - the author's, not ours
    return random.getstate(), np.asarray(keys).tobytes(), rest
