"""Many cohorts in Python against spec/vectors: cohorts.json, and what delegates put into the written-down rounds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from protocol.cohorts import FinishedGroup, compute_group_round_id, name_delegates
from protocol.errors import ProtocolError
from protocol.identity import PeerId
from protocol.round.combining import group_sum, group_sum_digest
from protocol.round.jobs import GroupSum, UnpackJob
from protocol.secagg.apply import Aggregate, apply_aggregate, model_digest
from protocol.secagg.parameters import RoundParameters
from protocol.signaling import Combining, GroupCount, Member, Place, RoundStart, compute_cohort_round_id
from protocol.terms import LocalTraining, RunTerms
from python_node.announcement import HeldSum, check_announcement, delegate_parameters, rival_round_ids
from spec.reference.messages import Context, decode
from tests.secagg.ring import read_whole, signed

VECTORS = Path(__file__).parents[2] / "spec" / "vectors"
ZEROS = "00" * 32


def cases(ask: str, result: str = "valid") -> list[object]:
    found = json.loads((VECTORS / "cohorts.json").read_text())["cases"]
    return [pytest.param(c, id=c["id"]) for c in found if c["input"]["ask"] == ask and c["result"] == result]


def rounds() -> list[object]:
    return [
        pytest.param(case, id=case["id"])
        for path in sorted(VECTORS.glob("round-combining*.json"))
        for case in json.loads(path.read_text())["cases"]
    ]


def parameters_of(given: dict, *, round_id: str, plan_digest: str, model_digest: str) -> RoundParameters:
    return RoundParameters(
        run_id=given["run_id"],
        round_id=round_id,
        plan_digest=plan_digest,
        model_digest=model_digest,
        cohort=tuple(PeerId(peer) for peer in given["cohort"]),
        min_survivors=given["min_survivors"],
        ring_bits=given["ring_bits"],
        value_bits=given["value_bits"],
        replicas=given["replicas"],
        vector_length=given["elements"],
        clip=given["clip"],
        multiplicity=given["multiplicity"],
        sources=tuple(given["sources"]),
    )


def round_id_of(given: dict) -> str:
    numbers = (given["round"], given["attempt"], given["level"], given["group"])
    return compute_group_round_id(given["run_id"], *numbers)


@pytest.mark.parametrize("case", cases("round-id"))
def test_round_ids(case: dict) -> None:
    assert round_id_of(case["input"]) == case["output"]["round_id"]


@pytest.mark.parametrize("case", cases("round-id", "invalid"))
def test_places_that_do_not_exist(case: dict) -> None:
    with pytest.raises(ProtocolError):
        round_id_of(case["input"])


def total_of(given: dict) -> GroupSum:
    """Through the code of a cohort with such sources: of peers, or of delegates for so many groups."""
    count, combines = given["contributions"], given["multiplicity"] > 1
    parameters = parameters_of(
        {
            "run_id": ZEROS,
            "cohort": [f"{i:064x}" for i in range(count)],
            "min_survivors": 3,
            "ring_bits": given["ring_bits"],
            "value_bits": given["value_bits"],
            "replicas": 1,
            "elements": len(given["sums"]),
            "clip": 1.0,
            "multiplicity": given["multiplicity"],
            "sources": range(count) if combines else (),
        },
        round_id=ZEROS,
        plan_digest=ZEROS,
        model_digest=ZEROS,
    )
    bound = parameters.largest_contribution
    sums = signed(given["sums"], given["ring_bits"], survivors=count, largest_value=bound)
    lost = ((given["weight_at"], given["weight_at"] + 1),) if given["weight_lost"] else ()
    aggregate = Aggregate(sums=sums, survivors=frozenset(range(count)), lost=lost, contributions=count)
    return group_sum(aggregate, parameters, model_length=given["weight_at"])


@pytest.mark.parametrize("case", cases("group-sum"))
def test_sums_of_groups(case: dict) -> None:
    total = total_of(case["input"])
    assert total.sums.tolist() == case["output"]["sums"]
    assert group_sum_digest(total) == case["output"]["digest"]


@pytest.mark.parametrize("case", cases("group-sum", "invalid"))
def test_refused_sums(case: dict) -> None:
    with pytest.raises(ProtocolError):
        total_of(case["input"])


def groups_of(given: dict) -> list[FinishedGroup]:
    return [FinishedGroup(**group | {"signers": tuple(group["signers"])}) for group in given["groups"]]


@pytest.mark.parametrize("case", cases("delegates"))
def test_delegates(case: dict) -> None:
    (found,) = name_delegates(groups_of(case["input"]))
    named = {"cohort": [*found.cohort], "sources": [*found.sources], "multiplicity": found.multiplicity}
    assert named == case["output"]


@pytest.mark.parametrize("case", cases("delegates", "invalid"))
def test_delegates_that_cannot_be_named(case: dict) -> None:
    with pytest.raises(ProtocolError):
        name_delegates(groups_of(case["input"]))


def asked_parameters(given: dict) -> RoundParameters:
    names = ("round_id", "plan_digest", "model_digest")
    return parameters_of(given["parameters"], **{name: given[name] for name in names})


@pytest.mark.parametrize("case", cases("parameters"))
def test_parameters_and_contributions(case: dict) -> None:
    given, expected = case["input"], case["output"]
    found = asked_parameters(given)
    masked, survivors = frozenset(given["masked"]), frozenset(given["survivors"])
    assert found.t0.hex() == expected["t0"]
    assert [i for i in given["masked"] if found.contributes(i, masked)] == expected["contributors"]
    assert found.contributions(survivors) == expected["contributions"]
    assert found.contributions(survivors) * found.largest_contribution == expected["range"]


@pytest.mark.parametrize("case", cases("parameters", "invalid"))
def test_refused_parameters(case: dict) -> None:
    with pytest.raises(ProtocolError):
        asked_parameters(case["input"])


def judge(given: dict) -> None:
    """As a membership does: the announcement, then what was joined before, then a delegation."""
    a, held, own = given["announcement"], given["held"], PeerId(given["peer"])
    combining = a["combining"] and Combining(
        sources=tuple(a["combining"]["sources"]),
        multiplicity=a["combining"]["multiplicity"],
        groups=tuple(GroupCount(**group) for group in a["combining"]["groups"]),
    )
    start = RoundStart(
        run=a["run_id"],
        round=a["round"],
        attempt=a["attempt"],
        round_id=a["round_id"],
        model_digest=ZEROS,
        members=tuple(Member(peer=peer) for peer in a["cohort"]),
        place=a["place"] and Place(**a["place"]),
        combining=combining,
    )
    asked = given["terms"] | {"members": tuple(given["terms"]["members"])}
    local = LocalTraining(batch_size=8, learning_rate=0.1)
    terms = RunTerms(name="cohorts", plan=ZEROS, nonce=ZEROS, min_survivors=3, clip=1.0, local=local, **asked)
    cohort = check_announcement(start, terms=terms, own=own)
    if set(rival_round_ids(start, terms)) & set(given["joined"]):
        raise ProtocolError("joined before")
    parameters = {"run_id": a["run_id"], "min_survivors": 3, "ring_bits": 20, "value_bits": 16, "replicas": 1}
    parameters |= {"elements": 40, "clip": 1.0, "multiplicity": 1, "sources": ()}
    digests = {"plan_digest": ZEROS, "model_digest": ZEROS}
    if start.combining is None:
        parameters_of(parameters | {"cohort": cohort}, round_id=start.round_id, **digests)
        return
    mine = held and HeldSum(
        round=held["round"],
        attempt=held["attempt"],
        group=held["group"],
        parameters=parameters_of(
            parameters | {"cohort": held["cohort"]},
            round_id=compute_cohort_round_id(start.run, start.round, start.attempt, Place(level=1, group=0)),
            **digests,
        ),
        total=GroupSum(np.zeros(40, np.int32)),
    )
    delegate_parameters(start, mine, cohort=cohort, own=own, terms=terms)


@pytest.mark.parametrize("case", cases("announcement"))
def test_announcements_that_are_taken(case: dict) -> None:
    judge(case["input"])


@pytest.mark.parametrize("case", cases("announcement", "invalid"))
def test_announcements_that_are_refused(case: dict) -> None:
    with pytest.raises(ProtocolError):
        judge(case["input"])


@pytest.mark.parametrize("case", rounds())
def test_delegates_of_a_written_down_round_put_in_the_same_and_end_with_the_same_model(case: dict) -> None:
    announced, found = case["input"]["announcement"], case["output"]
    digests = {"plan_digest": announced["plan_digest"], "model_digest": announced["model_digest"]}
    parameters = parameters_of(announced["parameters"], round_id=found["round_id"], **digests)
    assert parameters.t0.hex() == found["t0"]
    masked, survivors = frozenset(found["masked"]), frozenset(found["survivors"])
    for peer in case["input"]["peers"]:
        if peer["index"] in masked:
            mine = GroupSum(np.array(peer["group_sum"], np.int32))
            ring = mine.ring_elements(parameters, counts=parameters.contributes(peer["index"], masked))
            assert read_whole(ring, mine.length).view(np.int32).tolist() == peer["quantised"]
    context = Context(parameters.size, bytes.fromhex(found["round_id"]), 32, parameters.vector_length, len(masked))
    sent = [decode(bytes.fromhex(m["bytes"]), context) for m in found["messages"] if m["type"] == "sum"]
    sums = {message["chunk"]: memoryview(bytes.fromhex(message["packed"])) for message in sent}
    aggregate = UnpackJob(parameters, parameters.chunks(masked), sums, survivors)()
    assert aggregate.sums.tolist() == found["aggregate"]
    old = np.frombuffer(bytes.fromhex(announced["theta"] + announced["buffers"]), "<f4")
    new = apply_aggregate(old, aggregate, clip=parameters.clip, largest_value=parameters.largest_contribution)
    assert new.tobytes().hex() == found["theta"] + found["buffers"]
    assert model_digest(new) == found["model_digest"]
