"""An owner's policy: nothing runs by default, each limit declines by its own name, every reason names both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from plans.memory_limit import usual_limit_bytes
from protocol.manifest import Blob, DataField, DatasetSchema, Function, PlanManifest, Training
from protocol.server_optimizer import ServerOptimizer
from protocol.terms import Deadlines, LocalTraining, RunTerms
from python_node.errors import PolicyError
from python_node.policy import Decision, Policy

AUTHOR = "a1" * 32
OTHER = "b2" * 32
GRAPH = "c3" * 32
IMAGE = DataField(name="image", dtype="float32", shape=(4,))
DIGITS = DatasetSchema(name="digits", fields=(IMAGE,))
SOUNDS = DatasetSchema(name="sounds", fields=(DataField(name="wave", dtype="float32", shape=(9,)),))


def manifest(**changes: Any) -> PlanManifest:
    function = Function(graph=GRAPH, inputs=(), outputs=())
    base = PlanManifest(
        name="clinic/mlp",
        version="1",
        opset=20,
        inputs=(IMAGE,),
        targets=(),
        parameters=(),
        parameter_count=100,
        optimizer_count=50,
        buffer_count=0,
        metrics=(),
        training=Training(optimizer="sgd", learning_rate=0.1, batch_size=8),
        functions={"train": function, "evaluate": function},
        initial={},
        blobs=(Blob(digest=GRAPH, size=1000, role="train"),),
    )
    return msgspec.structs.replace(base, **changes)


def terms(**changes: Any) -> RunTerms:
    base = RunTerms(
        name="run",
        plan="d4" * 32,
        nonce="e5" * 32,
        rounds=10,
        cohort_size=6,
        min_cohort=5,
        min_survivors=5,
        clip=1.0,
        local=LocalTraining(epochs=2, batch_size=8, learning_rate=0.1),
    )
    return msgspec.structs.replace(base, **changes)


def decide(policy: Policy, **changes: Any) -> Decision:
    arguments: dict[str, Any] = {"terms": terms(), "author": AUTHOR, "manifest": manifest(), "datasets": [DIGITS]}
    return policy.decide(**{**arguments, **changes})


def test_without_a_policy_everything_is_declined_and_the_reason_tells_how_to_allow() -> None:
    decision = decide(Policy())
    assert not decision.accepted
    assert decision.rule == "authors"
    assert decision.dataset is None
    assert f'put "{AUTHOR}" into authors' in decision.reason


def test_listed_author_is_accepted_on_the_dataset_that_fits() -> None:
    decision = decide(Policy(authors=[AUTHOR]), datasets=[SOUNDS, DIGITS])
    assert decision.accepted
    assert decision.rule == "authors"
    assert decision.dataset == "digits"


def test_unlisted_author_is_declined() -> None:
    assert decide(Policy(authors=[OTHER])).rule == "authors"


def test_any_author_must_be_written_out() -> None:
    assert decide(Policy(authors=["any"])).accepted
    assert not decide(Policy(authors=[])).accepted


@pytest.mark.parametrize("authors", [["all"], ["*"], ["ANY"], [AUTHOR.upper()], [AUTHOR[:8]], ["any", AUTHOR]])
def test_author_that_is_no_peer_id_is_refused(authors: list[str]) -> None:
    with pytest.raises(PolicyError, match="authors"):
        Policy(authors=authors)


@pytest.mark.parametrize(
    ("rule", "limit", "changes", "asked"),
    [
        ("min_cohort", 6, {}, "5"),
        ("min_survivors", 6, {}, "5"),
        ("max_parameters", 99, {}, "100"),
        ("max_model_bytes", 1599, {}, "1600"),
        ("max_rounds", 9, {}, "10"),
        ("max_epochs", 1, {}, "2"),
        ("max_round_seconds", 109, {}, "110"),
    ],
)
def test_each_limit_declines_by_its_own_name_and_accepts_at_its_edge(
    rule: str, limit: int, changes: dict[str, Any], asked: str
) -> None:
    declined = decide(Policy(authors=[AUTHOR], **{rule: limit}), **changes)
    assert (declined.accepted, declined.rule) == (False, rule)
    assert asked in declined.reason
    assert str(limit) in declined.reason
    edge = limit - 1 if rule.startswith("min") else limit + 1
    assert decide(Policy(authors=[AUTHOR], **{rule: edge}), **changes).accepted


def test_moments_of_a_server_optimizer_count_as_bytes_of_the_model() -> None:
    adaptive = terms(server_optimizer=ServerOptimizer(kind="fedadam"))
    parameters = manifest().parameter_count
    declined = decide(Policy(authors=[AUTHOR], max_model_bytes=1600), terms=adaptive)
    assert (declined.rule, f"{1600 + 8 * parameters}" in declined.reason) == ("max_model_bytes", True)
    assert decide(Policy(authors=[AUTHOR], max_model_bytes=1600 + 8 * parameters), terms=adaptive).accepted


def test_default_policy_declines_sums_over_few_peers() -> None:
    small = terms(cohort_size=4, min_cohort=4, min_survivors=3)
    assert decide(Policy(authors=[AUTHOR]), terms=small).rule == "min_cohort"


def test_deadlines_count_to_the_millisecond() -> None:
    slow = terms(deadlines=Deadlines(train_ms=60_001))
    assert decide(Policy(authors=[AUTHOR], max_round_seconds=110), terms=slow).rule == "max_round_seconds"


def test_plan_with_a_function_outside_the_policy_is_declined() -> None:
    function = Function(graph=GRAPH, inputs=(), outputs=())
    asks = manifest(functions={"train": function, "query": function})
    decision = decide(Policy(authors=[AUTHOR]), manifest=asks)
    assert decision.rule == "functions"
    assert "query" in decision.reason
    assert "train, evaluate, predict" in decision.reason


def test_misfit_is_declined_with_both_sides() -> None:
    decision = decide(Policy(authors=[AUTHOR]), datasets=[SOUNDS])
    assert decision.rule == "datasets"
    assert "'image'" in decision.reason
    assert "dataset sounds has wave" in decision.reason


def test_node_without_datasets_declines() -> None:
    decision = decide(Policy(authors=[AUTHOR]), datasets=[])
    assert decision.rule == "datasets"
    assert "it has: none" in decision.reason


def test_datasets_are_opened_by_plan_name() -> None:
    policy = Policy(authors=[AUTHOR], datasets={"clinic/*": ["dig*"]})
    assert decide(policy).dataset == "digits"
    assert decide(policy, manifest=manifest(name="shop/mlp")).rule == "datasets"
    private = msgspec.structs.replace(DIGITS, name="private")
    assert decide(policy, datasets=[private]).rule == "datasets"
    assert decide(policy, datasets=[private, DIGITS]).dataset == "digits"


def test_reason_stays_short_enough_for_a_receipt() -> None:
    fields = tuple(DataField(name=f"{i:03d}" + "f" * 120, dtype="int64", shape=()) for i in range(60))
    many = [DatasetSchema(name=f"d{i}", fields=fields) for i in range(20)]
    assert len(decide(Policy(authors=[AUTHOR]), datasets=many).reason) <= 4000


def test_decisions_are_pure() -> None:
    policy = Policy(authors=[AUTHOR])
    assert decide(policy) == decide(policy)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return path


def test_policy_file_sets_what_it_names_and_keeps_the_rest(tmp_path: Path) -> None:
    policy = Policy.load(
        write(tmp_path, f'authors = ["{AUTHOR}"]\nmin_cohort = 3\n[datasets]\n"clinic/*" = ["digits"]\n')
    )
    assert policy == Policy(authors=[AUTHOR], min_cohort=3, datasets={"clinic/*": ["digits"]})
    assert policy.min_survivors == 5
    assert policy.share_example_counts is False
    assert policy.serve_models is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_epoch = 3\n", "unknown key max_epoch; known keys are authors, datasets, functions, known_peers"),
        ("min_cohort = 2\n", "min_cohort"),
        ("min_cohort = 65\n", "min_cohort"),
        ("max_rounds = 0\n", "max_rounds"),
        ("authors = 'any'\n", "authors"),
        ("authors = ['everyone']\n", "policy.toml: authors: 'everyone' is no peer id"),
        ("functions = ['train', 'steal']\n", "steal"),
        ("share_example_counts = 'yes'\n", "share_example_counts"),
        ("authors = [\n", "is no TOML"),
    ],
)
def test_policy_file_that_means_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Policy.load(write(tmp_path, text))


def test_missing_policy_file_is_an_error_and_not_a_default(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="No such file"):
        Policy.load(tmp_path / "policy.toml")


def test_policy_file_that_anybody_may_write_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 'authors = ["any"]\n')
    path.chmod(0o666)
    with pytest.raises(PolicyError, match="chmod o-w"):
        Policy.load(path)


def test_by_default_a_run_may_take_half_of_the_memory() -> None:
    assert Policy().memory_limit == usual_limit_bytes()
    assert Policy(max_memory_bytes=1 << 30).memory_limit == 1 << 30


@pytest.mark.parametrize("value", ["268435455", "0", '"all"', "1.5"])
def test_a_limit_of_memory_that_means_nothing_is_refused(tmp_path: Path, value: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(f"max_memory_bytes = {value}\n")
    file.chmod(0o600)
    with pytest.raises(PolicyError, match="max_memory_bytes"):
        Policy.load(file)
