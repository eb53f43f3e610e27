"""The whole of a small model of agreement is explored; without a rule, or with one liar too many, it is broken."""

from __future__ import annotations

import pytest

from tests.round.agreement_model import Model, explore


@pytest.mark.parametrize(
    "model",
    [
        Model(n=4, liars=1),
        Model(n=4, liars=1, rosters=2),
        Model(n=5, liars=1),
        Model(n=5, liars=2),
    ],
    ids=str,
)
def test_no_path_leads_to_two_certificates_or_both_secrets_of_a_peer(model: Model) -> None:
    whole = explore(model)
    assert whole.wrong is None, whole.path
    assert whole.states > 5_000


@pytest.mark.parametrize(
    ("model", "secrets_alone", "wrong"),
    [
        (Model(n=4, liars=1, one_vote=False), False, "two certificates"),
        (Model(n=4, liars=1, one_vote=False), True, "both secrets"),
        (Model(n=4, liars=1, less=1), False, "two certificates"),
        (Model(n=4, liars=1, less=1), True, "both secrets"),
        (Model(n=4, liars=1, bound_votes=False), False, "two certificates"),
        (Model(n=4, liars=1, bound_votes=False), True, "both secrets"),
        (Model(n=4, liars=1, stays_out=False), False, "two certificates"),
        (Model(n=4, liars=1, spent=False), False, "two updates"),
        # 2t <= n + c
        (Model(n=4, liars=2), False, "two certificates"),
        (Model(n=4, liars=2), True, "both secrets"),
        (Model(n=5, liars=3), False, "two certificates"),
        (Model(n=5, liars=3), True, "both secrets"),
    ],
    ids=str,
)
def test_without_a_rule_or_beyond_the_bound_a_path_is_found(model: Model, *, secrets_alone: bool, wrong: str) -> None:
    broken = explore(model, secrets_alone=secrets_alone)
    assert broken.wrong is not None
    assert wrong in broken.wrong
    assert len(broken.path) >= 3
