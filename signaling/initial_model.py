"""The digest a run's first round starts from: SHA-256 of a plan's published initial parameters, then buffers."""

from __future__ import annotations

import hashlib
from typing import Literal

from protocol.encoding import Digest
from protocol.manifest import PlanManifest
from signaling.blobs import BlobFolder

__all__ = ["initial_model_digest"]

_TILE = 1 << 20


def initial_model_digest(manifest: PlanManifest, blobs: BlobFolder) -> Digest:
    """SHA-256 of float32 [parameters + buffers]; a vector without a blob is zeros (spec 06 §2). Blocks."""
    state = hashlib.sha256()
    parts: tuple[tuple[Literal["theta", "buffers"], int], ...] = (
        ("theta", manifest.parameter_count),
        ("buffers", manifest.buffer_count),
    )
    for role, count in parts:
        digest = manifest.initial.get(role)
        for offset in range(0, 4 * count, _TILE):
            size = min(_TILE, 4 * count - offset)
            state.update(bytes(size) if digest is None else blobs.read(digest, offset, size))
    return Digest(state.hexdigest())
