"""Models whose vectors decide how much memory a node takes: what is done differently for them."""

from __future__ import annotations

import ctypes
import sys

from protocol.manifest import PlanManifest

__all__ = ["give_memory_back", "is_large"]

_LARGE_BYTES = 16 << 20
_M_MMAP_THRESHOLD, _MAPPED_BYTES = -3, 128 << 10


def is_large(manifest: PlanManifest) -> bool:
    """Whether parameters and buffers take more than 16 MiB."""
    return 4 * (manifest.parameter_count + manifest.buffer_count) > _LARGE_BYTES


def give_memory_back() -> None:
    """Have glibc return every freed block of 128 KiB or more to the system at once, for the rest of this process.

    By itself it raises that bound to 32 MiB as blocks are freed, and keeps a model's layers for uses that never come.
    Other allocators are left as they are.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
