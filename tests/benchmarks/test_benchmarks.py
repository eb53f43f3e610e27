"""Each benchmark, as small as it goes: it ends well and prints what it promises; no figure is judged."""

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.__main__ import EXTRA, NAMES
from tests.benchmarks.promises import PROMISES, Machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
FOR_LINUX = {"signaling", "rounds", "large_model"}
"""They read /proc."""
SAYS_AS_IT_GOES = {"secagg", "many_cohorts"}


def ran(*words, status=0, path=None):
    """The output of a command line that ends with a status, and what it wrote beside."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({} if path is None else {"PATH": path})
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done.stdout, done.stderr


def is_command(path):
    """Whether a module does something when it is run."""
    ends = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If)]
    return any(ast.unparse(end.test) == "__name__ == '__main__'" for end in ends)


def test_every_benchmark_is_among_those_that_are_tested():
    folder = ROOT / "benchmarks"
    commands = {path.stem for path in folder.glob("**/*.py") if is_command(path)}
    assert commands == {"__main__", *PROMISES}
    assert sorted([*NAMES, *EXTRA]) == sorted(PROMISES)


@pytest.mark.parametrize("name", PROMISES)
def test_a_benchmark_prints_what_it_promises(name, request):
    if name in FOR_LINUX and sys.platform != "linux":
        pytest.skip("reads /proc")
    if name == "plan_step_web":
        request.getfixturevalue("prepared")
    promise = PROMISES[name]
    options = promise.options.split("|")
    out, _ = ran(f"benchmarks.{name}", "--json", *options)
    (line,) = out.splitlines()
    found = msgspec.json.decode(line)
    assert list(found) == ["name", "machine", "settings", "figures"]
    assert found["name"] == name
    msgspec.convert(found["machine"], Machine)
    assert found["settings"]
    figures = found["figures"]
    if promise.cases is not None:
        assert tuple(figures) == promise.cases
        msgspec.convert(figures, dict[str, promise.figures])
    else:
        msgspec.convert(figures, promise.figures)
    if not promise.words:
        return
    if name in SAYS_AS_IT_GOES:
        shown, _ = ran(f"benchmarks.{name}", *options)
    else:
        shown = "\n".join(importlib.import_module(f"benchmarks.{name}").lines(figures))
    for words in promise.words:
        assert words in shown


def test_all_are_run_in_turn_and_the_failed_are_named(tmp_path):
    out, errors = ran(
        "benchmarks", "plan_step_web", "server_optimizers", "--out", str(tmp_path / "found"), path="", status=1
    )
    assert json.loads(out)["name"] == "server_optimizers"
    assert errors.splitlines()[-1] == "failed or missed a target: plan_step_web"
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["server_optimizers.json"]
    assert (tmp_path / "found" / "server_optimizers.json").read_text() == out


def test_a_benchmark_that_nobody_knows_is_refused():
    _, errors = ran("benchmarks", "nothing", status=2)
    assert "no benchmark is called nothing; there are plan_step, " in errors


@pytest.mark.parametrize("words", [("server_optimizers", "--repeats", "0"), ("rounds", "--rounds", "1")])
def test_too_few_repeats_are_refused_before_anything_is_measured(words):
    _, errors = ran(f"benchmarks.{words[0]}", *words[1:], status=2)
    assert f"expected {int(words[2]) + 1} or more, got {words[2]}" in errors


def test_the_javascript_package_times_masks(package):
    command = ["node", "bench/masks.mjs", "1000", "2000"]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    names = ["elements", "peers", "quantise_ms", "mask_pack_hash_ms", "sum_own_chunk_ms", "packed_bytes"]
    assert [list(row) for row in rows] == [names, names]
    assert [row["elements"] for row in rows] == [1000, 2000]
