"""Run every benchmark, each in its own process, and print their JSON objects one per line.

`python -m benchmarks [--out FOLDER] [NAME ...]`; with `--out` each object also goes to FOLDER/NAME.json. The soak
and the large model are left out unless they are named: they take minutes, and gigabytes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

NAMES = ("plan_step", "plan_step_web", "secagg", "server_optimizers", "many_cohorts", "links", "signaling", "rounds")
EXTRA = ("soak", "large_model")


def main() -> None:
    """Run them in turn; the exit status is 1 where one failed or missed a target of its own, after all were run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of: " + ", ".join([*NAMES, *EXTRA]))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    unknown = sorted(set(options.names) - {*NAMES, *EXTRA})
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join([*NAMES, *EXTRA])}")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.names or NAMES:
        print(f"benchmarks.{name} ...", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", "--json"], stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            failed.append(name)
        if not done.stdout.strip():
            continue
        line = json.dumps(json.loads(done.stdout))
        print(line, flush=True)
        if options.out is not None:
            (options.out / f"{name}.json").write_text(line + "\n")
    if failed:
        sys.exit(f"failed or missed a target: {', '.join(failed)}")


if __name__ == "__main__":
    main()
