"""The digest a run's first round starts from: SHA-256 of a plan's initial parameters, buffers, moments."""

from __future__ import annotations

import hashlib
import struct
from typing import Literal

from protocol.encoding import Digest
from protocol.manifest import PlanManifest
from protocol.server_optimizer import ServerOptimizer, initial_moments
from signaling.blobs import BlobFolder

__all__ = ["initial_model_digest"]

_TILE = 1 << 20


def initial_model_digest(manifest: PlanManifest, blobs: BlobFolder, optimizer: ServerOptimizer) -> Digest:
    """SHA-256 of float32 [parameters + buffers + moments]; a vector without a blob is zeros (spec 06 §2). Blocks."""
    state = hashlib.sha256()
    parts: tuple[tuple[Literal["theta", "buffers"], int], ...] = (
        ("theta", manifest.shared_count),
        ("buffers", manifest.buffer_count),
    )
    for role, count in parts:
        digest = manifest.initial.get(role)
        for offset in range(0, 4 * count, _TILE):
            size = min(_TILE, 4 * count - offset)
            state.update(bytes(size) if digest is None else blobs.read(digest, offset, size))
    for value in initial_moments(optimizer):
        tile = struct.pack("<f", value) * (_TILE // 4)
        for offset in range(0, 4 * manifest.shared_count, _TILE):
            state.update(tile[: min(_TILE, 4 * manifest.shared_count - offset)])
    return Digest(state.hexdigest())
