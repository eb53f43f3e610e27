"""What people do wrong on their first day: one sentence says what to do, and nothing half-made stays behind."""

import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from cli.errors import CommandError
from cli.files import write_whole
from cli.main import app
from cli.signal_command import _tell
from plans.release import released_model
from signaling import SignalingConfig


@pytest.mark.parametrize(
    ("url", "status", "advice"),
    [
        ("ws://127.0.0.1:9", 4, "nothing listens there; is the signaling server running"),
        ("http://127.0.0.1:8080", 3, "expected a URL like wss://host:port"),
        ("127.0.0.1:8080", 3, "expected a URL like wss://host:port"),
        ("ws://127.0.0.1:port", 3, "expected a URL like wss://host:port"),
    ],
)
def test_a_wrong_url_is_refused_with_what_to_look_at(refused, url, status, advice):
    assert advice in refused("runs", url, status=status)["message"]


def test_tls_where_there_is_none_is_said(refused, signaling):
    url = signaling.url.replace("ws://", "wss://")
    assert "is the URL ws:// instead of wss://?" in refused("runs", url, status=4)["message"]


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("/here", "it sends peers on to http://elsewhere/here/; where the URL has a path"),
        ("/nowhere", "at this path"),
    ],
)
def test_a_wrong_path_behind_a_proxy_is_said(refused, path, advice):
    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(301 if self.path == "/here" else 404)
            self.send_header("Location", f"http://elsewhere{self.path}/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"ws://127.0.0.1:{proxy.server_address[1]}{path}"
        assert advice in refused("runs", url, status=4)["message"]
        proxy.shutdown()


@pytest.mark.parametrize(
    ("host", "audiences", "said"),
    [
        ("127.0.0.1", (), ["listening on ws://127.0.0.1:8080, identity ab", "at http://127.0.0.1:8080/join"]),
        ("0.0.0.0", (), ["http://HOST:8080/join, HOST being a name of this machine"]),
        ("0.0.0.0", ("a.example:443",), ["peers dial it as a.example:443", "from a browser at /join there"]),
        ("127.0.0.1", ("a.example:443", "b.example:443"), ["as a.example:443, b.example:443", "at /join there"]),
    ],
)
def test_an_operator_reads_where_others_find_the_server(capsys, host, audiences, said):
    url = f"ws://{host}:8080"
    _tell(
        SimpleNamespace(url=url, join_url=f"http://{host}:8080/join", peer_id="ab" * 32),
        SignalingConfig(folder=Path(), host=host, audiences=audiences),
        as_json=False,
    )
    shown = capsys.readouterr().out
    for words in said:
        assert words in shown


def test_a_port_in_use_is_said_with_a_way_out(refused, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refused("signal", "--port", port, "--folder", tmp_path / "s", status=3)["message"]
    assert f"port {port}" in message
    assert "take another port" in message


def test_a_file_in_place_of_the_signaling_folder_is_said(refused, tmp_path):
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    message = refused("signal", "--port", 0, "--folder", tmp_path / "data.csv", status=3)["message"]
    assert message.endswith("is a file, expected a folder")


def test_an_audience_is_a_host_and_a_port(refused, tmp_path):
    message = refused("signal", "--audience", "signal.example", "--folder", tmp_path / "s", status=2)["message"]
    assert "expected HOST:PORT" in message


@pytest.mark.parametrize(
    ("source", "status", "advice"),
    [
        ("mine.py:make", 2, "for example mine:make"),
        ("models/mine.py", 2, "for example models.mine:build_plan"),
        ("mine", 3, "name the function too, as in mine:build_plan"),
    ],
)
def test_a_script_in_place_of_a_plan_is_answered_with_how_to_name_it(refused, signaling, source, status, advice):
    assert advice in refused("publish", source, signaling.url, "--rounds", 1, status=status)["message"]


def test_a_learning_rate_of_zero_is_refused_and_not_the_plans_own(refused, signaling, plan_file):
    words = ("--rounds", 1, "--learning-rate", 0)
    assert "learning_rate" in refused("publish", plan_file, signaling.url, *words, status=3)["message"]


def test_a_csv_file_with_other_separators_is_named_as_such(refused, tmp_path):
    (tmp_path / "semi.csv").write_text("age;bmi\n34;22,1\n")
    words = ("--data", f"d={tmp_path / 'semi.csv'}", "--allow-author", "any", "--state", tmp_path / "s")
    message = refused("node", "ws://127.0.0.1:9", *words, status=3)["message"]
    assert message.endswith("expected 1 as in the header; the header has semicolons, a .csv file separates by commas")


def test_more_columns_than_a_model_reads_are_answered_with_the_option(refused, plan, tmp_path):
    (tmp_path / "m.onnx").write_bytes(released_model(plan, plan.initial("theta"), plan.initial("buffers")))
    (tmp_path / "seven.csv").write_text("name,a,b,c,d,e,f\n" + "0,1,2,3,4,5,6\n")
    message = refused("predict", tmp_path / "m.onnx", "--input", tmp_path / "seven.csv", status=3)["message"]
    assert "name them in order by --field x=COLUMN,COLUMN" in message


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_doctor_sees_a_node_key_that_others_may_read(peerplan, tmp_path):
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    (folder / "identity.key").write_text("0" * 64 + "\n")
    (folder / "identity.key").chmod(0o644)
    shown = peerplan("doctor", "--state", folder)
    assert shown.exit_code == 3
    assert f"chmod 600 {folder / 'identity.key'}" in shown.stdout.replace("\n", "")


def test_a_file_that_cannot_be_written_leaves_nothing_beside_it(tmp_path, monkeypatch):
    def full(path, _data):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(CommandError, match="No space left on device"):
        write_whole(tmp_path / "model.onnx", b"model")
    assert list(tmp_path.iterdir()) == []


def test_a_key_in_a_folder_that_cannot_be_read_is_one_error(refused, tmp_path, monkeypatch):
    def denied(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.exists", denied)
    assert refused("identity", "--path", tmp_path / "author.key", status=3)["message"].endswith("Permission denied")


@pytest.mark.parametrize("command", [[], ["demo"], ["node"], ["publish"], ["plan"], ["plan", "inspect"]])
def test_help_shows_no_type_behind_a_flag(command):
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "100", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert "--help" in shown.output
    assert "<bool>" not in shown.output


def test_help_flows_with_the_width_of_the_terminal():
    shown = CliRunner().invoke(app, ["node", "--help"], env={"COLUMNS": "300", "TERM": "dumb"})
    (line,) = [line for line in shown.output.splitlines() if "Data stays here" in line]
    assert "SIGTERM and Ctrl-C end it cleanly." in line
