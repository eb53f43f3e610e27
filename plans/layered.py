"""Where the boxes of a directed graph go on paper: one layer below the other, few crossings, straight long lines.

After Sugiyama, Tagawa and Toda (1981): boxes have their layer already, lines over several layers get a place to pass
through in each, layers are ordered by the mean of their neighbours, and places drawn towards them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Placed", "place"]

_GAP_X, _GAP_Y = 18.0, 34.0
_SWEEPS = 12

Point = tuple[float, float]


@dataclass(frozen=True)
class Placed:
    """Left upper corners of the boxes, the points each edge passes through, and the size of all of it."""

    corners: list[Point]
    routes: list[list[Point]]
    width: float
    height: float


def place(sizes: Sequence[Point], edges: Sequence[tuple[int, int]], layer_of: Sequence[int]) -> Placed:
    """Lay out boxes of (width, height); an edge goes from a box to one of a later layer."""
    widths = [width for width, _ in sizes]
    layers: list[list[int]] = [[] for _ in range(1 + max(layer_of, default=-1))]
    for box, number in enumerate(layer_of):
        layers[number].append(box)
    chains = []
    for start, end in edges:
        chain = [start]
        for between in range(layer_of[start] + 1, layer_of[end]):
            layers[between].append(len(widths))
            chain.append(len(widths))
            widths.append(0.0)
        chains.append([*chain, end])
    above, below = _neighbours(len(widths), chains)
    _order(layers, above, below)
    centers = _centers(layers, widths, above, below)
    left = min((centers[box] - widths[box] / 2 for layer in layers for box in layer), default=0.0)
    tops, height = [], 0.0
    for layer in layers:
        tops.append(height)
        height += max((sizes[box][1] for box in layer if box < len(sizes)), default=0.0) + _GAP_Y
    at = {box: row for row, layer in enumerate(layers) for box in layer}
    corners = [(centers[box] - widths[box] / 2 - left, tops[layer_of[box]]) for box in range(len(sizes))]
    routes = [
        [
            (centers[chain[0]] - left, tops[at[chain[0]]] + sizes[chain[0]][1]),
            *((centers[box] - left, tops[at[box]] + _GAP_Y / 4) for box in chain[1:-1]),
            (centers[chain[-1]] - left, tops[at[chain[-1]]]),
        ]
        for chain in chains
    ]
    right = max((centers[box] + widths[box] / 2 - left for layer in layers for box in layer), default=0.0)
    return Placed(corners, routes, right, max(0.0, height - _GAP_Y))


def _neighbours(count: int, chains: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[list[int]]]:
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for chain in chains:
        for start, end in pairwise(chain):
            below[start].append(end)
            above[end].append(start)
    return above, below


def _order(layers: list[list[int]], above: Sequence[Sequence[int]], below: Sequence[Sequence[int]]) -> None:
    """Sort each layer by the mean place of its neighbours, down and up in turn."""
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        rank = {box: float(at) for layer in layers for at, box in enumerate(layer)}
        for layer in layers if down else reversed(layers):
            near = above if down else below
            mean = {box: _mean([rank[other] for other in near[box]], rank[box]) for box in layer}
            layer.sort(key=mean.__getitem__)
            rank.update({box: float(at) for at, box in enumerate(layer)})


def _centers(
    layers: Sequence[Sequence[int]],
    widths: Sequence[float],
    above: Sequence[Sequence[int]],
    below: Sequence[Sequence[int]],
) -> list[float]:
    """Horizontal centers: each layer is drawn towards its neighbours as far as its boxes leave room."""
    centers = [0.0] * len(widths)
    for layer in layers:
        _spread(layer, widths, centers, [0.0] * len(layer))
    for sweep in range(2 * _SWEEPS):
        down = sweep % 2 == 0
        near = above if down else below
        for layer in layers if down else reversed(layers):
            wanted = [_mean([centers[other] for other in near[box]], centers[box]) for box in layer]
            _spread(layer, widths, centers, wanted)
    return centers


def _spread(layer: Sequence[int], widths: Sequence[float], centers: list[float], wanted: Sequence[float]) -> None:
    """The mean of pushing to the right and pushing to the left until nothing overlaps."""
    right, left = list(wanted), list(wanted)
    for at in range(1, len(layer)):
        right[at] = max(right[at], right[at - 1] + _apart(layer, widths, at))
    for at in range(len(layer) - 2, -1, -1):
        left[at] = min(left[at], left[at + 1] - _apart(layer, widths, at + 1))
    for at, box in enumerate(layer):
        centers[box] = (right[at] + left[at]) / 2


def _apart(layer: Sequence[int], widths: Sequence[float], at: int) -> float:
    return (widths[layer[at - 1]] + widths[layer[at]]) / 2 + _GAP_X


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
