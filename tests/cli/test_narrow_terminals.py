"""What people read fits a terminal of 80 columns."""

import io

import pytest
from rich.console import Console

from cli import run_commands
from protocol.signaling import RunStatus

REASON = "6 attempts at round 2; the last: run 1f3001c0 round 2 attempt 6: only 2 peers for the roster"


def status(name, **changes):
    said = {
        "run": "1f3001c0" * 8,
        "plan": "02" * 32,
        "name": name,
        "author": "bc80e9a6" * 8,
        "state": "finished",
        "reason": "",
        "rounds": 1000,
        "round": 1000,
        "attempt": 1,
        "model_digest": "03" * 32,
        "accepted": 640,
        "ready": 640,
        "opened_at": 1_800_000_000.0,
    }
    return RunStatus(**said | changes)


@pytest.mark.parametrize("name", ["digits", "a-clinic/with-a-very-long-name/of-a-plan"])
def test_the_list_of_runs_is_whole_at_80_columns(monkeypatch, name):
    shown = io.StringIO()
    monkeypatch.setattr(run_commands, "console", lambda: Console(file=shown, width=80, force_terminal=False))
    run_commands._show([status(name), status(name, state="failed", reason=REASON)], "ws://127.0.0.1:1")
    text = shown.getvalue()
    assert "…" not in text
    for words in ("1f3001c0", "finished", "failed", "1000/1000", "640 of 640", "bc80e9a6"):
        assert words in text
    assert f"1f3001c0: {REASON}" in text  # on a line of its own, which the terminal may break
    assert all(len(line) <= 80 for line in text.splitlines() if not line.startswith("1f3001c0: "))
