import math
import sys

import pytest
from torch import nn

import plans
from plans import Field
from plans.errors import BundleError
from plans.operators import ALLOWED
from protocol.terms import LocalTraining, RunTerms


def terms(plan, /, **options):
    local = LocalTraining(batch_size=16, learning_rate=0.1, max_examples=1024)
    settings = {
        "name": "r", "plan": plan.digest, "nonce": "00" * 32, "rounds": 3, "cohort_size": 10, "min_cohort": 5,
        "min_survivors": 5, "clip": 1.0, "local": local,
    }  # fmt: skip
    return RunTerms(**(settings | options))


def test_bytes_follow_from_the_manifest_and_the_terms(plan):
    found = plans.preflight(plan, terms(plan, evaluate=False), measure=False)
    # parameters, then a tail of the weight, loss and accuracy
    assert found.vector_length == plan.manifest.parameter_count + 3
    packed = math.ceil(found.vector_length / 8) * 20
    assert found.bytes_up == found.bytes_down == math.ceil(packed * 0.9 * 2)
    assert found.step is None
    assert plans.preflight(plan, terms(plan, replicas=2), measure=False).bytes_up > found.bytes_up


def test_a_million_parameters_cost_what_the_protocol_was_measured_at():
    """4.5 MB up at ten peers, a million values and 20 bits."""
    plan = plans.trace(
        nn.Linear(999, 1000, bias=False),
        loss="cross_entropy",
        optimizer="sgd",
        inputs={"x": Field("float32", (999,))},
        targets={"y": Field("int64")},
        name="t",
        version="1",
        check=False,
    )
    assert plans.preflight(plan, terms(plan), measure=False).bytes_up == pytest.approx(4.5e6, rel=0.01)


def test_the_ring_margin_is_one_where_sums_just_fit(plan):
    roomy = plans.preflight(plan, terms(plan), measure=False)
    assert roomy.ring_margin == pytest.approx(2**19 / (10 * 32767))
    assert roomy.warnings == ()
    full = plans.preflight(plan, terms(plan, cohort_size=17), measure=False)
    assert full.ring_margin < 1
    assert "17 values of 16 bits sum up to 557039, a ring of 20 bits holds 524287" in full.warnings[0]


def test_a_step_is_timed_and_held_against_the_deadline(plan):
    found = plans.preflight(plan, terms(plan))
    assert found.step.batch_size == 16
    assert 0 < found.step.median_s <= found.step.longest_s
    local = LocalTraining(batch_size=1, learning_rate=0.1, max_examples=1 << 24, epochs=1000)
    assert "the deadline is 60000 ms" in plans.preflight(plan, terms(plan, local=local)).warnings[-1]


def test_operators_that_browsers_lack_are_named(plan, monkeypatch):
    assert plans.preflight(plan, terms(plan), measure=False).missing_on_web == ()
    monkeypatch.setattr(sys.modules["plans.preflight"], "WEB", ALLOWED - {"Gemm", "Relu"})
    assert plans.preflight(plan, terms(plan), measure=False).missing_on_web == ("Gemm", "Relu")


def test_terms_of_another_plan_are_refused(plan):
    with pytest.raises(BundleError, match="are of plan 000000000000, this one is"):
        plans.preflight(plan, terms(plan, plan="00" * 32), measure=False)


def test_running_statistics_are_pointed_out():
    plan = plans.trace(
        nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)),
        loss="cross_entropy",
        optimizer="sgd",
        inputs={"x": Field("float32", (6,))},
        targets={"y": Field("int64")},
        name="t",
        version="1",
    )
    assert "8 buffers" in plans.preflight(plan, terms(plan), measure=False).warnings[0]
