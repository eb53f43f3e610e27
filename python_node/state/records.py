"""What `NodeState` gives back."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["CheckpointRecord", "RunRecord"]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run this node takes part in: the exact envelopes the author signed, and the dataset the policy chose."""

    run: str
    terms_envelope: bytes = field(repr=False)
    plan_envelope: bytes = field(repr=False)
    dataset: str


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """A checkpoint on disk: `size` bytes of little-endian float32 with SHA-256 `digest`, entering round `round`."""

    run: str
    round: int
    digest: str
    size: int
