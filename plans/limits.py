"""Every bound on what a node reads and runs of a plan, with its unit."""

from __future__ import annotations

__all__ = [
    "MAX_BLOBS",
    "MAX_BUNDLE_BYTES",
    "MAX_CONSTANT_BYTES",
    "MAX_DEPTH",
    "MAX_GRAPH_BYTES",
    "MAX_NODES",
    "MAX_RANK",
]

MAX_BUNDLE_BYTES = 2 << 30
"""Bytes of a whole bundle on disk, blobs included."""

MAX_BLOBS = 256
"""Blobs in one bundle; as in the manifest."""

MAX_GRAPH_BYTES = 256 << 20
"""Bytes of one ONNX graph."""

MAX_CONSTANT_BYTES = 256 << 20
"""Bytes of one constant inside a graph."""

MAX_NODES = 200_000
"""Nodes of one graph, those of inner graphs included."""

MAX_DEPTH = 4
"""Graphs within graphs: a Loop in an If in a Loop has depth 3."""

MAX_RANK = 8
"""Dimensions of a tensor."""
