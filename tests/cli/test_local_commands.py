"""identity, plan inspect, predict and doctor: commands that need nobody else."""

import csv
import json
import stat

import msgspec
import numpy as np
import pytest

import plans
from cli.output import to_json
from plans.release import released_model


def test_an_identity_is_made_once_and_its_key_is_never_shown(peerplan, refused, tmp_path):
    path = tmp_path / "author.key"
    assert refused("identity", "--path", path, status=3)["code"] == "no-identity"
    made = peerplan("identity", "--path", path, "--create", "--json")
    again = peerplan("identity", "--path", path, "--create", "--json")
    shown = peerplan("identity", "--path", path)
    first, second = json.loads(made.stdout), json.loads(again.stdout)
    assert (first["created"], second["created"]) == (True, False)
    assert first["peer"] == second["peer"]
    assert first["peer"] in shown.stdout
    key = path.read_text().strip()
    assert all(key not in result.output for result in (made, again, shown))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_others_may_read_is_refused(peerplan, refused, tmp_path):
    path = tmp_path / "author.key"
    peerplan("identity", "--path", path, "--create")
    path.chmod(0o644)
    error = refused("identity", "--path", path, status=3)
    assert error["code"] == "bad-state"
    assert path.read_text().strip() not in error["message"]


def test_inspect_shows_what_is_read_and_what_leaves(peerplan, plan_file, plan, author):
    card = json.loads(peerplan("plan", "inspect", plan_file, "--json").stdout)
    assert card["digest"] == plan.digest
    assert card["author"] == author[1].peer_id
    assert [field["name"] for field in card["reads"]] == ["x", "label"]
    assert card["parameter_count"] == 6 * 8 + 8 + 8 * 3 + 3
    assert {function["name"] for function in card["functions"]} == {"train", "evaluate", "predict"}
    shown = peerplan("plan", "inspect", plan_file).stdout
    assert "float32[6]" in shown
    assert author[1].peer_id in shown


def test_inspect_draws_graphs_and_writes_them_for_other_viewers(peerplan, plan_file, plan, tmp_path):
    found = json.loads(
        peerplan("plan", "inspect", plan_file, "--svg", tmp_path / "p", "--onnx", tmp_path / "m", "--json").stdout
    )
    assert found["pictures"] == [str(tmp_path / "p" / f"{kind}.svg") for kind in plan.manifest.functions]
    for kind in plan.manifest.functions:
        assert (tmp_path / "p" / f"{kind}.svg").read_text() == plans.picture(
            plan.graph(kind), title=f"{plan.manifest.name} {plan.manifest.version}: {kind}"
        )
        assert (tmp_path / "m" / f"{kind}.onnx").read_bytes() == plan.graph(kind)
    assert "https://netron.app" in peerplan("plan", "inspect", plan_file, "--onnx", tmp_path / "m").stdout


def test_text_of_a_plan_is_not_taken_as_markup(peerplan, plan, tmp_path):
    manifest = msgspec.structs.replace(plan.manifest, description="[bold red]trust me[/] [link=http://x]y[/link]")
    plans.Plan.of(manifest, plan.blobs).save(tmp_path / "loud.plan")
    shown = peerplan("plan", "inspect", tmp_path / "loud.plan")
    assert "[bold red]trust me[/] [link=http://x]y[/link]" in shown.stdout


@pytest.fixture
def model(plan, tmp_path):
    theta = plan.initial("theta") + np.float32(0.25)
    path = tmp_path / "model.onnx"
    path.write_bytes(released_model(plan, theta, plan.initial("buffers")))
    return path, theta


def expected(plan, theta, x):
    return plans.Executor(plan).predict(theta, plan.initial("buffers"), {"x": x})


@pytest.mark.parametrize("columns", ["x_{}", "anything{}"])
def test_predict_reads_the_columns_of_a_csv_file(peerplan, plan, model, tmp_path, columns):
    path, theta = model
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        more = ["label"] if columns == "x_{}" else []
        writer.writerow([columns.format(number) for number in range(6)] + more)
        writer.writerows([*map(repr, map(float, row)), *("7" for _ in more)] for row in x)
    shown = json.loads(peerplan("predict", path, "--input", table, "--json").stdout)
    np.testing.assert_array_equal(np.array(shown["outputs"]["outputs"], np.float32), expected(plan, theta, x))


def test_predict_takes_named_columns(peerplan, plan, model, tmp_path):
    path, theta = model
    table = tmp_path / "table.csv"
    table.write_text("f,e,d,c,b,a,z\n" + "\n".join("6,5,4,3,2,1,0" for _ in range(3)) + "\n")
    words = ("predict", path, "--input", table, "--field", "x=a,b,c,d,e,f", "--out", tmp_path / "out.npz")
    assert peerplan(*words).exit_code == 0
    x = np.tile(np.arange(1, 7, dtype=np.float32), (3, 1))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["outputs"], expected(plan, theta, x))


def test_predict_goes_through_more_than_one_batch(peerplan, plan, model, tmp_path, data_file):
    path, theta = model
    data = data_file(3, examples=2500)
    assert peerplan("predict", path, "--input", data, "--out", tmp_path / "out.csv").exit_code == 0
    found = np.loadtxt(tmp_path / "out.csv", delimiter=",", skiprows=1, dtype=np.float32)
    np.testing.assert_allclose(found, expected(plan, theta, np.load(data)["x"]), rtol=1e-6)


def test_predict_refuses_data_that_does_not_fit(refused, model, tmp_path, data_file):
    path, _ = model
    error = refused("predict", path, "--input", data_file(1, name="y"), status=3)
    assert (error["code"], "'x'" in error["message"]) == ("unusable-data", True)
    np.savez(tmp_path / "wide.npz", x=np.zeros((2, 7), np.float32))
    assert "[7]" in refused("predict", path, "--input", tmp_path / "wide.npz", status=3)["message"]
    np.savez(tmp_path / "double.npz", x=np.zeros((2, 6)))
    assert "float64" in refused("predict", path, "--input", tmp_path / "double.npz", status=3)["message"]
    assert refused("predict", path, "--input", tmp_path / "absent.csv", status=3)["code"] == "bad-file"
    assert refused("predict", path, "--input", data_file(1), "--field", "z=a", status=2)["code"] == "usage"


def test_predict_refuses_what_is_no_model(refused, tmp_path, data_file):
    (tmp_path / "bad.onnx").write_bytes(b"no model at all")
    assert refused("predict", tmp_path / "bad.onnx", "--input", data_file(1), status=3)["code"] == "bad-model"
    assert refused("predict", tmp_path / "absent.onnx", "--input", data_file(1), status=3)["code"] == "bad-file"


def test_doctor_links_two_peers_and_reaches_signaling(peerplan, signaling):
    shown = peerplan("doctor", signaling.url, "--server", signaling.server, "--json")
    assert shown.exit_code == 0, shown.output
    told = json.loads(shown.stdout)
    checks = {check["check"]: check for check in told["checks"]}
    assert told["ok"]
    assert checks["webrtc"]["figures"]["link_ms"] > 0
    assert checks["webrtc"]["figures"]["megabytes_per_s"] > 0
    assert checks["signaling"]["figures"]["server"] == signaling.server
    assert abs(checks["clock"]["figures"]["ahead_s"]) < 5


def test_doctor_says_what_to_do_and_ends_with_status_3(peerplan, tmp_path):
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    shown = peerplan("doctor", "ws://127.0.0.1:9", "--state", folder)
    assert shown.exit_code == 3
    assert f"chmod 700 {folder}" in shown.stdout.replace("\n", "")
    assert "cannot connect" in shown.stdout


def test_json_has_no_nan():
    assert to_json({"loss": float("nan"), "digits": np.arange(2), "one": np.float32(0.5)}) == (
        '{"loss":null,"digits":[0,1],"one":0.5}'
    )
