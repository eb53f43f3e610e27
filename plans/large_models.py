"""Models whose vectors decide how much memory a process takes: what is done differently for them."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from protocol.manifest import PlanManifest

__all__ = ["are_large", "give_memory_back", "giving_memory_back", "is_large"]

_LARGE_BYTES = 16 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAPPED_BYTES = 128 << 10
_USUAL_MOST = 32 << 20
"""Up to here glibc raises its own bound for mapped blocks; its bound for trimming is twice that."""


def is_large(manifest: PlanManifest) -> bool:
    """Whether parameters and buffers take more than 16 MiB."""
    return are_large(manifest.parameter_count + manifest.buffer_count)


def are_large(count: int) -> bool:
    """The same for that many parameters and buffers, float32 each."""
    return 4 * count > _LARGE_BYTES


def give_memory_back() -> None:
    """Have glibc return every freed block of 128 KiB or more to the system at once, for the rest of this process.

    By itself it raises that bound to 32 MiB as blocks are freed, and keeps a model's layers for uses that never come.
    Other allocators are left as they are.
    """
    _ask_glibc("mallopt", _M_MMAP_THRESHOLD, _MAPPED_BYTES)


@contextmanager
def giving_memory_back() -> Iterator[None]:
    """The same within a block, and at its start for all that was freed before it, garbage included.

    Afterwards glibc keeps blocks below 32 MiB, as it does by itself once such a block was freed.
    """
    gc.collect()
    give_memory_back()
    _ask_glibc("malloc_trim", 0)
    try:
        yield
    finally:
        _ask_glibc("mallopt", _M_MMAP_THRESHOLD, _USUAL_MOST)
        _ask_glibc("mallopt", _M_TRIM_THRESHOLD, 2 * _USUAL_MOST)


def _ask_glibc(function: str, *arguments: int) -> None:
    if sys.platform == "linux":
        found = getattr(ctypes.CDLL(None), function, None)  # musl has none
        if found is not None:
            found(*arguments)
