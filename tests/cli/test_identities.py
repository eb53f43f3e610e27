"""A key has one session at a time: what a running node or another command does with it is not cut off unawares."""

import pytest

from tests.cli.process import Peerplan, node, outcome

pytestmark = pytest.mark.slow


@pytest.fixture
def options(data_file, author):
    return ("--data", f"small={data_file(1)}", "--allow-author", author[1].peer_id)


def test_the_key_of_a_running_node_opens_no_second_session(signaling, tmp_path, plan_file, author, options, refused):
    key = tmp_path / "state" / "identity.key"
    alias = tmp_path / "mine.key"
    terms = ("--rounds", 1, "--cohort", 3)
    with node(tmp_path, signaling.url, "state", *options) as running:
        peer = running.until("registered")["peer"]
        own = ("publish", plan_file, signaling.url, "--identity", author[0], "--no-preflight", *terms)
        (published,), status = outcome(tmp_path, *own, "--member", peer, "--member", "ab" * 32, "--member", "cd" * 32)
        assert status == 0
        run = published["run"]
        while running.until("accepted")["run"] != run:
            pass  # runs of other tests are offered too
        alias.symlink_to(key)
        for words in (
            ("runs", signaling.url, "--identity", key),
            ("runs", signaling.url, "--identity", alias),
            ("runs", signaling.url, "--identity", key, "--stop", run),
            ("watch", signaling.url, run, "--identity", key),
            ("fetch", signaling.url, run, "--identity", key, "--out", tmp_path / "m.onnx"),
            ("publish", plan_file, signaling.url, "--identity", key, *terms),
        ):
            error = refused(*words, status=3)
            assert error["code"] == "identity-in-use"
            message = error["message"]
            assert f"in use by the node of process {running.process.pid}" in message
            assert f"peerplan receipts --state {tmp_path / 'state'}" in message
        told, status = outcome(tmp_path, "receipts", "--state", tmp_path / "state")
        assert (status, [line["run"] for line in told if line["run"] == run]) == (0, [run])
        seen, status = running.stop()
        assert (status, seen[-1]["event"]) == (0, "stopped")  # its session lasted until now
    (shown,), status = outcome(tmp_path, "runs", signaling.url, "--identity", key)
    assert status == 0
    assert run in [line["run"] for line in shown["runs"]]
    (others,), _ = outcome(tmp_path, "runs", signaling.url)
    assert run not in [line["run"] for line in others["runs"]]


def test_a_node_does_not_start_while_a_command_has_a_session_with_its_key(
    signaling, tmp_path, plan_file, author, options
):
    with node(tmp_path, signaling.url, "state", *options) as first:
        first.until("registered")
        first.stop()
    own = (
        "publish",
        plan_file,
        signaling.url,
        "--identity",
        author[0],
        "--no-preflight",
        "--rounds",
        1,
        "--cohort",
        3,
    )
    (published,), _ = outcome(tmp_path, *own)
    key = ("--identity", tmp_path / "state" / "identity.key")
    with Peerplan(tmp_path, "watch", signaling.url, published["run"], *key) as watching:
        watching.until("run")
        with node(tmp_path, signaling.url, "state", *options) as second:
            said, status = second.end()
        assert status == 3
        assert said[-1]["error"]["code"] == "bad-state"
        assert f"in use by process {watching.process.pid}" in said[-1]["error"]["message"]
        outcome(tmp_path, "runs", signaling.url, "--stop", published["run"], "--identity", author[0])
        _, status = watching.end()
        assert status == 5
    with node(tmp_path, signaling.url, "state", *options) as third:
        third.until("registered")


def test_whoever_follows_what_they_published_may_end_it_from_another_shell(signaling, tmp_path, plan_file, author):
    key = ("--identity", author[0])
    terms = ("--rounds", 1, "--cohort", 3, "--no-preflight", "--watch")
    with Peerplan(tmp_path, "publish", plan_file, signaling.url, *key, *terms) as following:
        run = following.until("published")["run"]
        following.until("run")
        said, status = outcome(tmp_path, "runs", signaling.url, "--stop", run, *key, "--reason", "a test")
        assert (said, status) == ([{"stopped": run}], 0)
        told, status = following.end()
    assert status == 5
    assert told[-1]["error"]["code"] == "run-stopped"
