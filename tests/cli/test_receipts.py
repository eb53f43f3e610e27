"""`peerplan receipts`: an owner reads what a node was asked, while it runs and afterwards."""

import json
import sqlite3

import pytest

from protocol.identity import Identity
from python_node.receipts import CompletedRound, Receipt, receipt_time, seal_receipt
from python_node.state import NodeState

RUN, OTHER = "01" * 32, "02" * 32


def receipt(run=RUN, **changes):
    said = {
        "run": run,
        "plan": "03" * 32,
        "author": "04" * 32,
        "name": "digits",
        "decision": "accepted",
        "rule": "authors",
        "reason": "author 04040404 is allowed",
        "dataset": "pixels",
        "time": receipt_time(0),
    }
    return Receipt(**said | changes)


@pytest.fixture
def state(tmp_path):
    with NodeState.open(tmp_path / "node") as opened:
        node = opened.identity()
        done = CompletedRound(round=7, attempt=1, survivors=5, model_digest="ab" * 32)
        for each in (
            receipt(),
            receipt(completed=done),
            receipt(OTHER, decision="declined", rule="min_cohort", reason="4 peers, expected 5", dataset=None),
        ):
            opened.save_receipt(seal_receipt(node, each))
        yield opened


def test_receipts_are_shown_while_the_node_runs(state, tmp_path, peerplan):
    shown = peerplan("receipts", "--state", tmp_path / "node")
    assert shown.exit_code == 0, shown.output
    for words in ("dataset pixels", "round 7, 5 survivors", "abababab", "min_cohort: 4 peers, expected 5"):
        assert words in shown.stdout


def test_receipts_are_shown_after_the_node_ended_and_of_one_run(state, tmp_path, peerplan):
    state.close()
    lines = peerplan("receipts", RUN[:6], "--state", tmp_path / "node", "--json").stdout.splitlines()
    told = [json.loads(line) for line in lines]
    assert [each["run"] for each in told] == [RUN, RUN]
    assert told[1]["completed"]["round"] == 7


def test_a_receipt_that_another_node_signed_is_refused(state, tmp_path, refused):
    state.close()
    with sqlite3.connect(tmp_path / "node" / "node.db") as database:
        forged = seal_receipt(Identity(bytes(32)), receipt())
        database.execute("UPDATE receipts SET envelope = ? WHERE seq = 1", (forged,))
    database.close()
    assert refused("receipts", "--state", tmp_path / "node", status=3)["code"] == "bad-receipt"


def test_a_folder_that_is_no_nodes_is_refused(tmp_path, refused):
    assert "holds no node.db" in refused("receipts", "--state", tmp_path, status=3)["message"]
    assert "no such folder" in refused("receipts", "--state", tmp_path / "absent", status=2)["message"]
