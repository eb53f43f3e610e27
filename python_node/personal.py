"""An owner's own model of a run: what all trained together, with the local parameters of this device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import plans
from plans.release import released_model
from protocol.envelope import PLAN_TYPE, open_envelope
from protocol.manifest import decode_manifest
from python_node.errors import StateError
from python_node.state import NodeState
from python_node.training import model_length, split_model

__all__ = ["PersonalModel", "personal_model"]


@dataclass(frozen=True)
class PersonalModel:
    """A released model as ONNX bytes; `local_count` of its parameters are this node's own."""

    run: str
    round: int
    name: str
    local_count: int
    onnx: bytes


def personal_model(state: NodeState, run: str) -> PersonalModel:
    """The newest model that a state folder holds of a run named by its id or the id's first digits.

    Raises:
        StateError: no such run or several, or the folder lacks its plan or a checkpoint.
    """
    found = [record for record in state.runs() if record.run.startswith(run)]
    if len(found) != 1:
        raise StateError(f"run {run}: the state folder holds {len(found)} runs of that name, expected 1")
    (record,) = found
    manifest = decode_manifest(open_envelope(record.plan_envelope, PLAN_TYPE, what="plan").payload)
    blobs = {blob.digest: state.blob(blob.digest) for blob in manifest.blobs}
    lacking = [digest[:12] for digest, data in blobs.items() if data is None]
    checkpoint = state.load_checkpoint(record.run)
    if lacking or checkpoint is None:
        missing = f"blobs {', '.join(lacking)} of its plan" if lacking else "a model, for no round went by yet"
        raise StateError(f"run {record.run[:12]}: the state folder lacks {missing}")
    held = {digest: data for digest, data in blobs.items() if data is not None}
    plan = plans.open_signed(record.plan_envelope, held)
    number, digest, data = checkpoint
    values = np.frombuffer(data, "<f4", count=model_length(plan)).astype(np.float32)
    kept = state.local_values(record.run)
    local = plan.initial("local") if kept is None else np.frombuffer(kept, "<f4").astype(np.float32)
    facts = {"peerplan.run": record.run, "peerplan.round": str(number), "peerplan.model": digest}
    return PersonalModel(
        run=record.run,
        round=number,
        name=manifest.name,
        local_count=manifest.local_count,
        onnx=released_model(plan, *split_model(plan, values, local), facts=facts),
    )
