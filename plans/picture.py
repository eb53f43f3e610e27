"""A function's graph as an SVG picture: a box per operator, a Loop's body as a box within.

Operators of one kind that read from the same boxes and stand equally far from both ends become one box with a count,
so that a convolution's gradient with its 25 products stays readable. Constants, outputs that are constant, and
Identity are left out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import Any

import onnx

from plans.errors import BundleError
from plans.layered import Placed, place

__all__ = ["picture"]

_MOST_BOXES, _MOST_SPANS = 4000, 400_000
_MOST_PORTS = 12
"""Up to here inputs and outputs have a box each."""
_CHARACTER, _LINE, _PADDING, _MARGIN = 7.2, 16.0, 9.0, 16.0
_TITLE = 26.0
_LONGEST_NAME = 28
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN"})
_CONTROL = frozenset({"Loop", "If", "Scan"})
_MOVING = frozenset(
    {"Cast", "Compress", "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Pad", "Reshape"}
    | {"Shape", "Size", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
_STYLE = """
text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:#1c2733}
rect{stroke:#5b6b7b;fill:#fff}.product{fill:#cfe3ff;stroke:#2d6cb5}.moving{fill:#eef1f4;stroke:#a4b0bc}
.input{fill:#dff3e2;stroke:#3c8a4b}.output{fill:#fde9cf;stroke:#b8741a}.control{fill:#fafbfc;stroke:#1c2733;stroke-width:1.5}
path{fill:none;stroke:#8796a5;stroke-width:1.1}marker path{fill:#8796a5;stroke:none}
"""


@dataclass
class _Box:
    """One or several operators, inputs or outputs that are drawn as one."""

    kind: str
    label: str
    names: list[str] = field(default_factory=list)
    inner: tuple[str, Placed] | None = None
    layer: int = 0


def picture(graph: bytes, *, title: str) -> str:
    """An SVG document of the ONNX bytes of a function that `validate` accepts.

    Raises:
        BundleError: it has more boxes than can be read on a picture.
    """
    drawn, placed = _drawing(onnx.ModelProto.FromString(graph).graph)
    width, height = placed.width + 2 * _MARGIN, placed.height + 2 * _MARGIN + _TITLE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}"><style>{_STYLE}</style>'
        '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker>'
        '<rect width="100%" height="100%" style="fill:#fff;stroke:none"/>'
        f'<text x="{_MARGIN:g}" y="{_MARGIN + 10:g}" style="font-weight:bold">{escape(title)}</text>'
        f'<g transform="translate({_MARGIN:g} {_MARGIN + _TITLE:g})">{drawn}</g></svg>\n'
    )


def _drawing(graph: Any) -> tuple[str, Placed]:
    boxes, edges = _boxes(graph)
    spans = sum(boxes[end].layer - boxes[start].layer for start, end in edges)
    for what, count, most in (("boxes", len(boxes), _MOST_BOXES), ("lines through layers", spans, _MOST_SPANS)):
        if count > most:
            raise BundleError(f"graph {graph.name[:40]!r} has {count} {what}, at most {most} are drawn")
    sizes = [_size(box) for box in boxes]
    placed = place(sizes, list(edges), [box.layer for box in boxes])
    parts = [_line(route, count) for route, count in zip(placed.routes, edges.values(), strict=True)]
    for box, size, corner in zip(boxes, sizes, placed.corners, strict=True):
        parts.append(_drawn(box, size, corner))
    return "".join(parts), placed


def _boxes(graph: Any) -> tuple[list[_Box], Counter[tuple[int, int]]]:
    """Boxes in reading order, and how many values go from one to another."""
    nodes = [node for node in graph.node if node.op_type != "Identity"]
    behind: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "Identity":
            behind[node.output[0]] = behind.get(node.input[0], node.input[0])
    constants = {tensor.name for tensor in graph.initializer}
    made = {name: at for at, node in enumerate(nodes) for name in node.output if name}

    def source(name: str) -> str:
        return behind.get(name, name)

    reads = [[n for n in dict.fromkeys(map(source, _reads(node))) if n not in constants] for node in nodes]
    depth, height = _distances(reads, made, len(nodes))
    sheet = _Sheet()
    low: dict[str, int] = {}
    for at, names in enumerate(reads):
        for name in names:
            if name not in made:
                low[name] = max(low.get(name, 0), height[at] + 1)
    inputs = list(low)
    for name in [value.name for value in graph.input if value.name in low] + inputs:
        if name not in sheet.of_value:
            key: object = ("input", name if len(inputs) <= _MOST_PORTS else low[name])
            sheet.of_value[name] = sheet.enter(key, _Box("input", ""), name)
    for at, node in enumerate(nodes):
        bodies = [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
        sources = frozenset(sheet.of_value[name] for name in reads[at])
        key = ("body", at) if bodies else (node.op_type, depth[at], height[at], sources)
        inner = _drawing(bodies[0]) if bodies else None
        box = sheet.enter(key, _Box(_class(node.op_type), node.op_type, inner=inner, layer=depth[at]), node.name)
        sheet.of_value |= dict.fromkeys(node.output, box)
        for name in reads[at]:
            sheet.edges[sheet.of_value[name], box] += 1
    last = 1 + max(depth, default=0)
    for value in graph.output:
        start = sheet.of_value.get(source(value.name))
        if start is None:
            continue  # a constant
        key = ("output", value.name if len(graph.output) <= _MOST_PORTS else start)
        box = sheet.enter(key, _Box("output", "", layer=last), value.name)
        sheet.edges[start, box] += 1
    return sheet.boxes, sheet.edges


class _Sheet:
    """Boxes under their keys: what has the key of an earlier one joins it."""

    def __init__(self) -> None:
        self.boxes: list[_Box] = []
        self.edges: Counter[tuple[int, int]] = Counter()
        self.of_value: dict[str, int] = {}
        self._keys: dict[object, int] = {}

    def enter(self, key: object, box: _Box, name: str) -> int:
        """The number of the box that has this key now."""
        at = self._keys.setdefault(key, len(self.boxes))
        if at == len(self.boxes):
            self.boxes.append(box)
        self.boxes[at].names.append(name)
        return at


def _distances(reads: list[list[str]], made: dict[str, int], count: int) -> tuple[list[int], list[int]]:
    """Longest ways of each node from an input and to an end; nodes are sorted, as ONNX wants them."""
    depth, height = [1] * count, [0] * count
    for at, names in enumerate(reads):
        depth[at] = max((depth[made[name]] + 1 for name in names if name in made), default=1)
    for at in range(count - 1, -1, -1):
        for name in reads[at]:
            if name in made:
                height[made[name]] = max(height[made[name]], height[at] + 1)
    return depth, height


def _reads(node: Any) -> list[str]:
    """What a node reads, its inner graphs' use of outer values included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            inner = attribute.g
            own = {value.name for value in inner.input} | {tensor.name for tensor in inner.initializer}
            own |= {name for each in inner.node for name in each.output}
            names += [name for each in inner.node for name in _reads(each) if name not in own]
    return names


def _class(kind: str) -> str:
    if kind in _CONTROL:
        return "control"
    return "product" if kind in _PRODUCTS else "moving" if kind in _MOVING else "plain"


def _text(box: _Box) -> str:
    if box.kind in ("input", "output"):
        shown = ", ".join(name[:_LONGEST_NAME] for name in box.names[:2])
        return shown if len(box.names) <= 2 else f"{box.names[0][:_LONGEST_NAME]} and {len(box.names) - 1} more"
    return box.label if len(box.names) == 1 else f"{box.label} \u00d7{len(box.names)}"


def _size(box: _Box) -> tuple[float, float]:
    width, height = len(_text(box)) * _CHARACTER + 2 * _PADDING, _LINE + _PADDING
    if box.inner is None:
        return width, height
    placed = box.inner[1]
    return max(width, placed.width + 2 * _MARGIN), placed.height + 2 * _MARGIN + _TITLE


def _drawn(box: _Box, size: tuple[float, float], corner: tuple[float, float]) -> str:
    (width, height), (x, y) = size, corner
    round_ = 12 if box.kind in ("input", "output") else 4
    shape = (
        f'<rect class="{box.kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{round_}"/>'
    )
    title = f"<title>{escape(', '.join(box.names[:20]))}</title>" if any(box.names) else ""
    if box.inner is None:
        middle = f'x="{x + width / 2:.1f}" y="{y + height / 2 + 4:.1f}" text-anchor="middle"'
        return f"<g>{title}{shape}<text {middle}>{escape(_text(box))}</text></g>"
    left = x + (width - box.inner[1].width) / 2
    return (
        f'<g>{title}{shape}<text x="{x + _MARGIN:.1f}" y="{y + 19:.1f}" style="font-weight:bold">'
        f"{escape(box.label)}: its body, once per step</text>"
        f'<g transform="translate({left:.1f} {y + _MARGIN + _TITLE:.1f})">{box.inner[0]}</g></g>'
    )


def _line(route: list[tuple[float, float]], count: int) -> str:
    path = f"M{route[0][0]:.1f} {route[0][1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(route):
        bend = (y1 - y0) / 2
        path += f"C{x0:.1f} {y0 + bend:.1f} {x1:.1f} {y1 - bend:.1f} {x1:.1f} {y1:.1f}"
    wide = f' style="stroke-width:{min(3.0, 1.1 + 0.25 * (count - 1)):.2g}"' if count > 1 else ""
    return f'<path d="{path}" marker-end="url(#arrow)"{wide}/>'
