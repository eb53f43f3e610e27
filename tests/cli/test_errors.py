"""Bad input: one line, one code, one exit status, in text and in JSON."""

import os
import re
import zipfile

import pytest
import typer.main

from cli import errors
from cli.main import app
from plans import PlanError
from python_node.errors import NodeError
from python_node.policy import Policy
from python_node.state import load_or_create_identity
from tests.cli.process import ROOT

NOWHERE = "ws://127.0.0.1:9"


def leaves():
    """Every command that does something, by its words."""
    group = typer.main.get_command(app)
    found = [([name], command) for name, command in group.commands.items() if name != "plan"]
    return found + [(["plan", name], command) for name, command in group.commands["plan"].commands.items()]


@pytest.mark.parametrize("words", [("runs", NOWHERE), ("watch", NOWHERE, "0" * 64)])
def test_a_signaling_server_that_is_down_ends_with_status_4(refused, words):
    error = refused(*words, status=4)
    assert error["code"] == "signaling-down"
    assert NOWHERE in error["message"]


def test_a_node_whose_signaling_server_is_down_ends_with_status_4(refused, tmp_path, data_file):
    words = ("node", NOWHERE, "--data", f"d={data_file(1)}", "--state", tmp_path / "state", "--allow-author", "any")
    assert refused(*words, status=4)["code"] == "signaling-down"


def test_publishing_to_nowhere_ends_with_status_4(refused, plan_file, author):
    error = refused("publish", plan_file, NOWHERE, "--rounds", 1, "--identity", author[0], status=4)
    assert error["code"] == "signaling-down"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--server-optimizer", "fedadam", "--server-tau", 0), "tau 0"),
        (("--server-optimizer", "fedavgm", "--server-beta1", 1), "beta1 1"),
        (("--server-optimizer", "fedyogi", "--server-learning-rate", "nan"), "learning_rate is nan"),
        (("--server-beta2", 0.9), "fedavg uses learning_rate; got beta2 too"),
    ],
)
def test_numbers_that_a_server_optimizer_does_not_take_are_refused(refused, plan_file, author, words, complaint):
    key = ("--identity", author[0])
    error = refused("publish", plan_file, NOWHERE, "--rounds", 1, *key, *words, status=3)
    assert error["code"] == "bad-terms"
    assert complaint in error["message"]


def test_text_that_is_no_url_is_refused(refused):
    assert refused("runs", "http://example.com", status=3)["code"] == "signaling-untrusted"


def test_another_signaling_server_than_the_pinned_one_is_refused(refused, signaling, stranger):
    error = refused("runs", signaling.url, "--server", stranger.peer_id, status=3)
    assert error["code"] == "signaling-untrusted"
    assert signaling.server[:8] in error["message"]
    assert stranger.peer_id[:8] in error["message"]


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_bytes_that_are_no_plan_are_refused(refused, tmp_path, command):
    (tmp_path / "bad.plan").write_bytes(os.urandom(300))
    assert refused("plan", command, tmp_path / "bad.plan", status=3)["code"] == "bad-bundle"
    assert refused("plan", command, tmp_path / "absent.plan", status=3)["code"] == "bad-bundle"


def test_a_tampered_plan_is_refused(refused, plan_file, tmp_path):
    with zipfile.ZipFile(plan_file) as archive:
        for name in archive.namelist():
            target = tmp_path / "bundle" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))
    blob = next((tmp_path / "bundle" / "blobs").iterdir())
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    error = refused("plan", "verify", tmp_path / "bundle", status=3)
    assert error["code"] == "bad-bundle"
    assert blob.name[:12] in error["message"]


def test_a_plan_by_another_author_is_refused(refused, plan_file, author, stranger):
    error = refused("plan", "verify", plan_file, "--author", stranger.peer_id, status=3)
    assert error["code"] == "bad-signature"
    assert author[1].peer_id[:8] in error["message"]


def test_a_plan_nobody_signed_is_refused(refused, plan, tmp_path):
    plan.save(tmp_path / "unsigned.plan")
    assert refused("plan", "verify", tmp_path / "unsigned.plan", status=3)["code"] == "bad-signature"


def test_nobody_publishes_another_authors_plan(refused, signaling, plan_file, tmp_path):
    load_or_create_identity(tmp_path / "other.key")
    error = refused(
        "publish", plan_file, signaling.url, "--rounds", 1, "--identity", tmp_path / "other.key", status=3
    )
    assert error["code"] == "bad-signature"


def test_terms_that_contradict_themselves_are_refused(refused, plan_file, author):
    words = ("publish", plan_file, NOWHERE, "--identity", author[0], "--rounds", 1, "--cohort", 3)
    assert refused(*words, "--min-cohort", 9, status=3)["code"] == "bad-terms"


def test_a_clip_too_small_to_reckon_with_is_refused(refused, signaling, plan_file, author):
    error = refused(
        "publish", plan_file, signaling.url, "--identity", author[0], "--rounds", 1, "--clip", 1e-300, status=3
    )
    assert "clip" in error["message"]


def test_a_run_whose_sums_overflow_is_refused_with_what_to_change(refused, plan_file, author):
    words = ("publish", plan_file, NOWHERE, "--identity", author[0], "--rounds", 1)
    error = refused(*words, "--cohort", 40, "--ring-bits", 20, "--value-bits", 16, status=3)
    assert error["code"] == "bad-terms"
    assert "take more ring_bits, fewer value_bits or a smaller cohort" in error["message"]


def test_a_plan_above_the_limits_of_owners_is_refused_unless_told(refused, plan_file, author, monkeypatch):
    words = ("publish", plan_file, NOWHERE, "--identity", author[0], "--rounds", 1, "--cohort", 5)
    monkeypatch.setattr("cli.preflight_report.DEFAULTS", Policy(max_model_bytes=1000))
    error = refused(*words, status=3)
    assert error["code"] == "too-large"
    assert "policy allows 1000 at most by default" in error["message"]
    assert "take an optimizer that keeps less state" in error["message"]
    refused(*words, "--no-preflight", status=4)  # nobody answers there, which is tried after the preflight


@pytest.mark.parametrize("name", ["0" * 64, "abcdef"])
def test_an_unknown_run_is_refused(refused, signaling, name):
    assert refused("watch", signaling.url, name, status=3)["code"] == "unknown-run"


def test_a_run_is_named_by_digits(refused, signaling):
    assert refused("watch", signaling.url, "../x", status=2)["code"] == "usage"


def test_nobody_stops_another_authors_run(refused, peerplan, signaling, plan_file, author, tmp_path):
    words = ("publish", plan_file, signaling.url, "--identity", author[0], "--rounds", 1, "--cohort", 3)
    run = peerplan(*words).stdout.split()[1]
    load_or_create_identity(tmp_path / "other.key")
    error = refused("runs", signaling.url, "--stop", run, "--identity", tmp_path / "other.key", status=3)
    assert error["code"] == "not-allowed"


def test_a_model_that_no_online_peer_holds_is_unreachable(refused, signaling, author, plan_file, peerplan, tmp_path):
    words = ("publish", plan_file, signaling.url, "--identity", author[0], "--rounds", 1, "--cohort", 3)
    run = peerplan(*words).stdout.split()[1]
    words = ("fetch", signaling.url, run, "--identity", author[0])
    error = refused(*words, "--round", 1, "--out", tmp_path / "m.onnx", status=3)
    assert "round 1" in error["message"]
    # before the first round the model is that of the plan, which needs no peer
    assert peerplan(*words, "--out", tmp_path / "m.onnx").exit_code == 0
    assert (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("policy", "named"),
    [("min_cohrt = 3", "min_cohrt"), ("min_cohort = 1", "min_cohort"), ("authors = 'x", "no TOML")],
)
def test_a_bad_policy_is_refused(refused, tmp_path, data_file, policy, named):
    path = tmp_path / "policy.toml"
    path.write_text(policy)
    error = refused("node", NOWHERE, "--data", f"d={data_file(1)}", "--policy", path, status=3)
    assert error["code"] == "bad-policy"
    assert named in error["message"]


def test_an_author_that_is_no_peer_id_is_refused(refused, data_file):
    error = refused("node", NOWHERE, "--data", f"d={data_file(1)}", "--allow-author", "alice", status=3)
    assert error["code"] == "bad-policy"


@pytest.mark.parametrize(
    ("words", "code", "status"),
    [
        (("--data", "nothing"), "usage", 2),
        ((), "usage", 2),
        (("--data", "d=absent.npz"), "bad-dataset", 3),
        (("--datasets", "absent.toml"), "bad-owner-file", 3),
        (("--data", "d=absent:function"), "bad-dataset", 3),
    ],
)
def test_data_that_cannot_be_loaded_is_refused(refused, words, code, status):
    assert refused("node", NOWHERE, *words, status=status)["code"] == code


def test_two_datasets_of_one_name_are_refused(refused, data_file):
    path = data_file(1)
    error = refused("node", NOWHERE, "--data", f"d={path}", "--data", f"d={path}", status=2)
    assert "twice" in error["message"]


@pytest.mark.parametrize(
    "words",
    [
        ("nothing",),
        ("node",),
        ("publish", "x.plan", NOWHERE),
        ("publish", "x.plan", NOWHERE, "--rounds", "many"),
        ("fetch", NOWHERE, "0" * 64, "--out", "model.pth"),
        ("predict", "m.onnx", "--input", "x.npz", "--out", "x.txt"),
        ("node", NOWHERE, "--stun", "nowhere"),
        ("node", NOWHERE, "--turn", "host:1"),
    ],
)
def test_words_that_mean_nothing_are_usage_errors(refused, words, data_file):
    more = ("--data", f"d={data_file(1)}", "--allow-author", "any") if words[0] == "node" and len(words) > 1 else ()
    assert refused(*words, *more, status=2)["code"] == "usage"


@pytest.mark.parametrize("entry", ["train", "train=soon", "dance=3", "train=-1", "train=0.01", "train=1e9"])
def test_a_deadline_outside_its_range_is_a_usage_error(refused, plan_file, author, entry):
    words = ("publish", plan_file, NOWHERE, "--identity", author[0], "--rounds", 1)
    assert refused(*words, "--deadline", entry, status=2)["code"] == "usage"


def test_a_function_that_gives_no_plan_is_refused(refused):
    assert refused("publish", "os:getcwd", NOWHERE, "--rounds", 1, status=3)["code"] == "bad-function"
    assert refused("publish", "absent_module:f", NOWHERE, "--rounds", 1, status=3)["code"] == "bad-function"
    assert refused("publish", "os:absent", NOWHERE, "--rounds", 1, status=2)["code"] == "usage"


def test_a_taken_port_and_a_folder_in_use_are_refused(refused, signaling, tmp_path):
    port = signaling.url.rpartition(":")[2]
    error = refused("signal", "--port", port, "--folder", tmp_path / "other", status=3)
    assert error["code"] == "bad-config"
    assert port in error["message"]


def test_a_certificate_without_its_key_is_refused(refused, tmp_path):
    error = refused("signal", "--tls-cert", "chain.pem", "--folder", tmp_path / "folder", status=3)
    assert error["code"] == "bad-config"


def test_turn_servers_without_a_secret_that_is_kept_are_refused(refused, tmp_path):
    folder = ("--folder", tmp_path / "folder")
    secret = tmp_path / "turn.secret"
    given = ("signal", "--turn", "turn.example:3478", "--turn-secret", secret, *folder)
    assert refused("signal", "--turn", "turn.example:3478", *folder, status=2)["code"] == "usage"
    assert refused("signal", "--turn-secret", secret, *folder, status=2)["code"] == "usage"
    assert refused("signal", "--stun", "nowhere", *folder, status=2)["code"] == "usage"
    assert "No such file" in refused(*given, status=3)["message"]
    secret.write_text("sixteen bytes and more\n", encoding="ascii")
    secret.chmod(0o640)
    assert "mode 0640, expected 0600" in refused(*given, status=3)["message"]
    secret.chmod(0o600)
    secret.write_text("short\n", encoding="ascii")
    error = refused(*given, status=3)
    assert (error["code"], "has 5 bytes" in error["message"]) == ("bad-config", True)
    secret.write_text("x" * 2000, encoding="ascii")
    assert "longer than 1024 bytes" in refused(*given, status=3)["message"]
    assert not (tmp_path / "folder").exists()


def test_debug_shows_where_an_error_came_from(peerplan):
    shown = peerplan("runs", NOWHERE, "--debug")
    assert shown.exit_code == 4
    assert "Traceback" in shown.stderr
    assert "SignalingDownError" in shown.stderr


def test_a_fault_of_the_program_is_told_with_its_trace_and_status_1(peerplan, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("cli.run_commands.all_runs", broken)
    monkeypatch.setattr("cli.run_commands.reader_identity", broken)
    shown = peerplan("runs", NOWHERE)
    assert shown.exit_code == 1
    assert "Traceback" in shown.stderr
    assert "error: ZeroDivisionError: a fault" in shown.stderr


def test_every_command_takes_json_and_shows_examples(peerplan):
    assert {" ".join(words) for words, _ in leaves()} == {
        *("signal", "node", "identity", "plan inspect", "plan verify", "publish", "runs", "watch", "fetch"),
        *("predict", "personal", "receipts", "demo", "doctor"),
    }
    for words, command in leaves():
        assert any("--json" in parameter.opts for parameter in command.params), words
        shown = peerplan(*words, "--help")
        assert shown.exit_code == 0
        assert "Examples" in shown.stdout, words


def test_version_is_told(peerplan):
    shown = peerplan("--version")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("peerplan ")


def test_the_manual_names_every_command_option_exit_code_and_error_code():
    manual = (ROOT / "docs" / "cli.md").read_text()
    for words, command in leaves():
        assert f"## {words[0]}" in manual
        for parameter in command.params:
            for option in parameter.opts:
                negative = option.replace("--", "--no-", 1)
                assert f"{option}" in manual or f"{negative}`" in manual, (words, option)
    for status in (errors.FAULT, errors.USAGE, errors.REFUSED, errors.UNREACHABLE, errors.RUN_FAILED):
        assert f"| {status} | " in manual
    assert f"| {errors.INTERRUPTED} | " in manual
    sources = "".join(path.read_text() for path in (ROOT / "cli").glob("*.py"))
    codes = set(re.findall(r'code="([a-z-]+)"', sources))
    codes |= {error.code for base in (NodeError, PlanError) for error in (base, *base.__subclasses__())}
    named = manual + (ROOT / "spec" / "errors.md").read_text()
    assert codes
    assert not {code for code in codes if f"`{code}`" not in named}


def test_no_command_is_a_usage_error_after_the_help(peerplan):
    shown = peerplan()
    assert shown.exit_code == 2
    assert "Usage:" in shown.output
    assert "error: a command is missing" in shown.stderr
