"""The JavaScript peer under test answers every vector over JSON lines (spec/peer-under-test.md)."""

import json
import subprocess
from pathlib import Path

import pytest

from spec.reference import output
from spec.reference.requests import requests_of

VECTORS = Path(output.__file__).resolve().parents[1] / "vectors"
NAMES = sorted(path.name for path in VECTORS.glob("*.json"))


def answers(package, requests):
    lines = [json.dumps({"id": r.id, "op": r.op, "input": r.input}) for r in requests]
    done = subprocess.run(
        ["node", "dist/conformance/main.js"],
        cwd=package,
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_every_vector_is_answered_as_the_reference_answers_it(package, name):
    requests = list(requests_of(json.loads((VECTORS / name).read_text(encoding="ascii"))))
    replies = answers(package, requests)
    assert [reply["id"] for reply in replies] == [request.id for request in requests]
    wrong = [reply for request, reply in zip(requests, replies, strict=True) if not request.matches(reply)]
    assert wrong == []


def test_an_unknown_operation_is_answered_unsupported(package):
    done = subprocess.run(
        ["node", "dist/conformance/main.js"],
        cwd=package,
        input='{"id": "x", "op": "divine", "input": {}}\n',
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout) == {"id": "x", "result": "unsupported"}
