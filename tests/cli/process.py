"""`peerplan` as processes of their own; every wait is for a line of theirs or their end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Peerplan:
    """One running command with --json."""

    def __init__(self, folder, *words):
        self.errors = folder / f"{words[0]}-{os.urandom(4).hex()}.err"
        with self.errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", *map(str, words), "--json"],
                cwd=ROOT,
                env=os.environ | {"XDG_DATA_HOME": str(folder), "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def lines(self):
        for line in self.process.stdout:
            yield json.loads(line)

    def until(self, event):
        """The first line of an event; fails with what the process said where it ends before."""
        seen = []
        for line in self.lines():
            if line.get("event") == event:
                return line
            seen.append(line)
        raise AssertionError(f"ended before {event!r}: {seen} {self.errors.read_text()}")

    def end(self):
        """Every line to come, and the exit status."""
        found = list(self.lines())
        return found, self.process.wait()

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.end()


class Signaling(Peerplan):
    """A signaling server that listens."""

    def __init__(self, folder, *words):
        super().__init__(
            folder, "signal", "--port", 0, "--folder", folder / "signaling", "--gather-seconds", 0.3, *words
        )
        told = self.until("listening")
        self.url, self.server = told["url"], told["server"]


def node(folder, url, name, *words):
    """A node with a state folder of its own that takes small cohorts."""
    return Peerplan(
        folder,
        *("node", url, "--state", folder / name, "--min-cohort", 3, "--min-survivors", 3),
        *words,
    )


def outcome(folder, *words):
    """The lines and exit status of a command that ends by itself."""
    with Peerplan(folder, *words) as process:
        return process.end()
