"""Build an ONNX graph node by node: equal nodes are made once, unused ones never leave, names are counted.

The same calls give the same bytes: names are numbers in order of creation, and nothing of the author's machine
(file paths, stack traces, doc strings) enters a node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["GraphBuilder", "port"]

_RANDOM = frozenset({"RandomUniform", "RandomUniformLike", "RandomNormal", "RandomNormalLike", "Bernoulli"})


def port(name: str, dtype: int, shape: Sequence[int | str]) -> Any:
    """A graph input or output; a string in `shape` names an open dimension."""
    return helper.make_tensor_value_info(name, dtype, list(shape))


class GraphBuilder:
    """One graph under construction. Values are known by name; `prefix` keeps those of a Loop body apart."""

    def __init__(self, prefix: str = "v", *, examples: int | None = None) -> None:
        self._prefix = prefix
        self.examples = examples
        """The batch for which convolutions may take a form that multiplies less and rounds more; None for none."""
        self._count = 0
        self._nodes: list[Any] = []
        self._known: dict[object, tuple[str, ...]] = {}
        self._constants: dict[str, np.ndarray[Any, Any]] = {}
        self._producer: dict[str, Any] = {}
        self.notes: dict[str, Any] = {}
        """What a lowering wants another to know of a value it made, such as the parts of a pooling gradient."""
        self.repeated: dict[str, str] = {}
        """Values [n, rows, columns] made by repeating one matrix, and that matrix."""
        self.scalars: set[str] = set()
        """Values of rank 0, so that rewrites know what broadcasts without changing a shape."""
        self.draws: Iterator[tuple[str, ...]] | None = None
        """Coefficients of the random numbers still to be drawn; None where a graph has no seed."""

    def op(self, kind: str, *inputs: str | None, **attributes: object) -> str:
        """Append a node with one output and give its name."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str | None, outputs: int, **attributes: object) -> tuple[str, ...]:
        """Append a node with `outputs` outputs; None stands for an optional input left out."""
        names = [name or "" for name in inputs]
        key = (kind, tuple(names), outputs, repr(sorted(attributes.items())))
        if key in self._known and "body" not in attributes and kind not in _RANDOM:
            return self._known[key]
        made = tuple(self._fresh() for _ in range(outputs))
        node = helper.make_node(kind, names, list(made), **attributes)
        self._nodes.append(node)
        self._known[key] = made
        self._producer.update(dict.fromkeys(made, node))
        return made

    def named(self, kind: str, *inputs: str, name: str) -> None:
        """Append a node whose output has a given name, for inner graphs to read."""
        self._nodes.append(helper.make_node(kind, list(inputs), [name]))

    def producer(self, name: str) -> Any:
        """The node that makes a value, or None for inputs, constants and values of an outer graph."""
        return self._producer.get(name)

    def constant(self, value: object, dtype: object = None) -> str:
        """An initialiser; equal ones are shared."""
        array = np.asarray(value, dtype=dtype)  # type: ignore[call-overload]
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            name = self._fresh()
            self._known[key] = (name,)
            self._constants[name] = array
        return self._known[key][0]

    def ints(self, *values: int) -> str:
        """A constant int64 vector: axes, shapes, indexes."""
        return self.constant(values, np.int64)

    def array(self, name: str) -> np.ndarray[Any, Any] | None:
        """The constant behind a name, or None."""
        return self._constants.get(name)

    def attribute(self, name: str, attribute: str, default: object = None) -> Any:
        """An attribute of the node that makes `name`."""
        for found in self._producer[name].attribute:
            if found.name == attribute:
                return helper.get_attribute_value(found)
        return default

    def read_again(self, instead: Mapping[str, str], *, after: Sequence[str]) -> None:
        """Nodes that no value of `after` needs read the values of `instead`, each in place of an equal one, its key.

        They follow those that `after` needs, and the nodes that make what is read again.
        """
        first = self._needed(after)
        again = self._needed(instead.values()) - first
        parts: tuple[list[Any], list[Any], list[Any]] = [], [], []
        for at, node in enumerate(self._nodes):
            part = 0 if at in first else 1 if at in again else 2
            if part == 2:
                node.input[:] = [instead.get(name, name) for name in node.input]
            parts[part].append(node)
        self._nodes = [node for part in parts for node in part]

    def _needed(self, values: Iterable[str]) -> set[int]:
        """Which nodes make these values and all that goes into them."""
        made_by = {name: at for at, node in enumerate(self._nodes) for name in node.output}
        found, left = set[int](), [made_by[name] for name in values if name in made_by]
        while left:
            at = left.pop()
            if at not in found:
                found.add(at)
                left.extend(made_by[name] for name in _reads(self._nodes[at]) if name in made_by)
        return found

    def finish(self, name: str, inputs: Sequence[Any], outputs: Sequence[tuple[str, Any]]) -> Any:
        """The GraphProto: `outputs` pair a value with the port it leaves by; what no output needs is dropped."""
        for value, leaving in outputs:
            # an output port has a name of its own, so that one value may leave by two ports, or be an input
            if leaving.name != value:
                self._nodes.append(helper.make_node("Identity", [value], [leaving.name]))
        kept, needed = self._live({leaving.name for _, leaving in outputs})
        constants = [numpy_helper.from_array(array, key) for key, array in self._constants.items() if key in needed]
        return helper.make_graph(kept, name, list(inputs), [leaving for _, leaving in outputs], constants)

    def _live(self, needed: set[str]) -> tuple[list[Any], set[str]]:
        kept = []
        for node in reversed(self._nodes):
            if needed.isdisjoint(node.output):
                continue
            if node.op_type == "MaxPool" and len(node.output) == 2 and node.output[1] not in needed:
                # runtimes have a fast kernel for pooling whose indices nobody reads
                del node.output[1]
            kept.append(node)
            needed.update(_reads(node))
        return kept[::-1], needed

    def _fresh(self) -> str:
        self._count += 1
        return f"{self._prefix}{self._count}"


def _reads(node: Any) -> Iterable[str]:
    yield from node.input
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            for inner in attribute.g.node:
                yield from _reads(inner)
