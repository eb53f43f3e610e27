"""Committed vectors and schemas are what the reference and the structs say; the reference passes its own test."""

import json
from pathlib import Path

import jsonschema
import pytest

from spec import generate_schemas
from spec.reference import files, output
from spec.reference.requests import Request, requests_of
from spec.reference.under_test import answer

VECTORS = Path(output.__file__).resolve().parents[1] / "vectors"
SCHEMAS = VECTORS.parent / "schemas"
NAMES = sorted(path.name for path in VECTORS.glob("*.json"))


@pytest.fixture(scope="module")
def regenerated():
    return files.all_files()


def load(name):
    return json.loads((VECTORS / name).read_text(encoding="ascii"))


def ask(request: Request):
    line = json.dumps({"id": request.id, "op": request.op, "input": request.input})
    return json.loads(next(answer([line])))


def test_regenerating_gives_the_committed_bytes(regenerated):
    assert sorted(regenerated) == NAMES
    for name, content in regenerated.items():
        assert (output.dump(content) + "\n").encode() == (VECTORS / name).read_bytes(), name


@pytest.mark.parametrize("name", NAMES)
def test_vectors_fit_their_schema_and_are_small(name):
    vectors = load(name)
    schema = json.loads((VECTORS / vectors["schema"]).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(vectors)
    assert (VECTORS / name).stat().st_size < 300_000


def test_case_ids_are_unique_over_all_files():
    ids = [case["id"] for name in NAMES for case in load(name)["cases"]]
    assert len(ids) == len(set(ids)) > 300


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_answers_every_request_over_json_lines(name):
    for request in requests_of(load(name)):
        reply = ask(request)
        assert reply["id"] == request.id
        assert request.matches(reply), request.id


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("round-")])
def test_refusals_come_from_the_rule_the_case_names(name):
    rules = {case["id"]: case.get("rule") for case in load(name)["cases"]}
    for request in requests_of(load(name)):
        assert ask(request).get("rule") == rules[request.id], request.id


def test_a_wrong_answer_does_not_match():
    request = next(r for r in requests_of(load("shamir.json")) if "output" in r.expected)
    assert not request.matches({"result": "invalid", "rule": "none"})
    assert not request.matches({"result": "valid", "output": {"shares": []}})
    assert not request.matches({"result": "unsupported"})


def test_an_unknown_operation_is_answered_unsupported():
    assert json.loads(next(answer(['{"id": "x", "op": "divine", "input": {}}']))) == {
        "id": "x",
        "result": "unsupported",
    }


def test_schemas_are_those_of_the_code():
    expected = dict(generate_schemas.all_schemas())
    found = {str(path.relative_to(SCHEMAS)) for path in SCHEMAS.rglob("*.json")}
    assert found == set(expected)
    for name, schema in expected.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert (SCHEMAS / name).read_text(encoding="utf-8") == generate_schemas.encode(schema), name
