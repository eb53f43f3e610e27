"""What a node keeps on disk, whenever it is killed: identity, journal, checkpoints, plan blobs and receipts."""

from __future__ import annotations

from python_node.state.identity_file import load_identity, load_or_create_identity
from python_node.state.lent_identity import lent_identity
from python_node.state.node_state import NodeState
from python_node.state.reading import read_receipts
from python_node.state.records import CheckpointRecord, RunRecord

__all__ = [
    "CheckpointRecord",
    "NodeState",
    "RunRecord",
    "lent_identity",
    "load_identity",
    "load_or_create_identity",
    "read_receipts",
]
