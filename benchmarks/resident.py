"""What processes take on Linux: any by its id, those that run plans for others, and nodes together with theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from threading import Event, Thread
from typing import Self

__all__ = ["Checking", "Nodes", "baseline_of", "cpu_s", "memory"]

_LOOK_S = 0.005
_CHECKS, _TRAINS = b"plans.trial", b"plans.process"


def cpu_s(pid: int | str) -> float:
    """Processor seconds, user and system, that a process took so far, with those of all it started."""
    while True:
        started = [child for task in Path(f"/proc/{pid}/task").iterdir() for child in _children(task)]
        parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        own_and_ended = sum(int(part) for part in parts[11:15]) / os.sysconf("SC_CLK_TCK")
        try:
            return own_and_ended + sum(cpu_s(child) for child in started)
        except OSError:  # one has just ended: from now on it counts for the process itself
            continue


def memory(pid: int | str, key: str = "VmHWM") -> int:
    """Bytes of a line of a process's status; VmHWM is the most it ever had, VmRSS what it has now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no {key}")


class Checking:
    """Follows the process that runs the plan in the check of a large model, in a `with` block around the trace."""

    def __init__(self) -> None:
        self.peak = 0
        self._done, self._thread = Event(), Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if kind is None and not self.peak:
            raise RuntimeError("the check ran in no process of its own")

    def _follow(self) -> None:
        """The system keeps each process's peak, so a look is short at most by what came after it."""
        while not self._done.wait(_LOOK_S):
            for task in Path("/proc/self/task").iterdir():
                for pid in _children(task):
                    self._look(pid)

    def _look(self, pid: str) -> None:
        if _runs(pid, _CHECKS):
            self.peak = max(self.peak, _held(pid, "VmHWM"))


def _runs(pid: str, module: bytes) -> bool:
    """Whether a process runs that module; before it runs Python, a new process shows its parent's memory."""
    try:
        return module in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return False


def _held(pid: str, key: str = "VmRSS") -> int:
    try:
        return memory(pid, key)
    except (OSError, RuntimeError):  # it has ended
        return 0


def _children(task: Path) -> list[str]:
    """Ids of the processes that a thread started and that still run; none where the thread itself has ended."""
    try:
        return (task / "children").read_text().split()
    except OSError:
        return []


class Nodes:
    """Follows nodes, each with the process that trains for it, in a `with` block: the most both had at one time."""

    def __init__(self, pids: Iterable[int]) -> None:
        self.peaks = dict.fromkeys(pids, 0)
        self._seen: set[int] = set()
        self._done, self._thread = Event(), Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if kind is None and self._seen != set(self.peaks):
            raise RuntimeError("a node trained in no process of its own")

    def _follow(self) -> None:
        while not self._done.wait(_LOOK_S):
            for pid, peak in self.peaks.items():
                tasks = Path(f"/proc/{pid}/task")
                trainers = [child for task in tasks.iterdir() for child in _children(task) if _runs(child, _TRAINS)]
                if trainers:
                    self._seen.add(pid)
                self.peaks[pid] = max(peak, memory(pid, "VmRSS") + sum(_held(child) for child in trainers))


def baseline_of(module: str) -> int:
    """Bytes that a process of such a module has resident before it reads a plan."""
    code = f"import {module}; from benchmarks.resident import memory; print(memory('self', 'VmRSS'))"
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
