"""Processor time of a process counts what it started, whether that still runs or has ended."""

import subprocess
import sys

import pytest

from benchmarks.resident import cpu_s

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

BUSY_S = 0.5
CHILD = f"import time\nwhile time.process_time() < {BUSY_S}: pass\nprint('worked', flush=True)\ninput()"
PARENT = f"""
import subprocess, sys
pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], **pipes)
print(child.stdout.readline(), end="", flush=True)
input()
child.communicate("\\n")
print("ended", flush=True)
input()
"""


def test_processor_time_counts_children_that_run_and_those_that_ended():
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "worked\n"
        running = cpu_s(parent.pid)
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "ended\n"
        ended = cpu_s(parent.pid)
        parent.communicate("\n")
    assert BUSY_S <= running <= ended < 60
