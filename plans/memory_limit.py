"""How much memory this machine has, and how a process keeps to a part of it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

if sys.platform != "win32":  # plans can be traced there, and no node runs
    import resource

__all__ = ["BEYOND_LIMIT", "LEAST_LIMIT_BYTES", "keep_to", "machine_bytes", "usual_limit_bytes"]

BEYOND_LIMIT = 4
"""Exit code of a process that would have needed more memory than it may take."""

LEAST_LIMIT_BYTES = 256 << 20
"""Python, numpy and ONNX Runtime take a quarter of this before they run anything."""

_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_KILL_ME_FIRST = Path("/proc/self/oom_score_adj")
_LOOK_EVERY_S = 0.02


def machine_bytes() -> int:
    """Bytes of memory of this machine, or of the container this process is in, where that has less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        allowed = _GROUP_LIMIT.read_text().strip()
    except OSError:
        return physical
    return min(physical, int(allowed)) if allowed.isdecimal() else physical


def usual_limit_bytes() -> int:
    """What one run may take where the owner says nothing: half of the machine's memory."""
    return max(LEAST_LIMIT_BYTES, machine_bytes() // 2)


def keep_to(limit_bytes: int) -> None:
    """From now on this process fails to allocate, or ends with `BEYOND_LIMIT`, before it takes more than that.

    Linux refuses memory that would go beyond, so nothing is taken, and whoever asked hears of it. Elsewhere no system
    call holds, and a thread ends the process once it has taken too much. Should the machine's memory run out all the
    same, Linux ends this process before any other of this user. What it held goes into no core dump.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        most = resource.getrlimit(resource.RLIMIT_DATA)[1]
        bound = limit_bytes if most == resource.RLIM_INFINITY else min(limit_bytes, most)
        resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
        with contextlib.suppress(OSError):  # where /proc is closed the limit holds all the same
            _KILL_ME_FIRST.write_text("1000")
    else:
        end_beyond(limit_bytes, taken_bytes=lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def end_beyond(limit_bytes: int, *, taken_bytes: Callable[[], int]) -> None:
    """End this process with `BEYOND_LIMIT` from a thread of its own once it has taken more."""

    def look() -> None:
        never = threading.Event()
        while taken_bytes() <= limit_bytes:
            never.wait(_LOOK_EVERY_S)
        os._exit(BEYOND_LIMIT)

    threading.Thread(target=look, name="peerplan-memory", daemon=True).start()
