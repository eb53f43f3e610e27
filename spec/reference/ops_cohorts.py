"""The operation `cohorts`: what spec 08 adds, one question at a time (spec/peer-under-test.md)."""

from __future__ import annotations

from collections.abc import Callable

from spec.reference import cohorts, transcript
from spec.reference.ops import Json, parameters_of, raw

__all__ = ["answer_question"]


def _group_round_id(g: Json) -> Json:
    place = (g["level"], g["group"])
    return {"round_id": transcript.group_round_id(raw(g["run_id"]), g["round"], g["attempt"], *place).hex()}


def _group_sum(g: Json) -> Json:
    sums = cohorts.group_sum(
        g["sums"],
        ring_bits=g["ring_bits"],
        value_bits=g["value_bits"],
        contributions=g["contributions"],
        multiplicity=g["multiplicity"],
        weight_at=g["weight_at"],
        weight_lost=g["weight_lost"],
    )
    return {"sums": sums, "digest": transcript.group_sum_digest(sums).hex()}


def _delegates(g: Json) -> Json:
    groups = [
        cohorts.Finished(
            x["group"], raw(x["round_id"]), raw(x["sum_digest"]), [raw(key) for key in x["signers"]], x["peers"]
        )
        for x in g["groups"]
    ]
    cohort, sources, multiplicity = cohorts.name_delegates(groups)
    return {"cohort": [key.hex() for key in cohort], "sources": sources, "multiplicity": multiplicity}


def _combining_parameters(g: Json) -> Json:
    p = parameters_of(g["parameters"])
    digests = (raw(g["round_id"]), raw(g["plan_digest"]), raw(g["model_digest"]))
    return {
        "parameters": p.encode().hex(),
        "t0": transcript.t0(*digests, p).hex(),
        "contributors": p.contributors(g["masked"]),
        "contributions": p.contributions(g["survivors"]),
        "range": p.contributions(g["survivors"]) * p.largest,
    }


def _announcement(g: Json) -> Json:
    a, t, held = g["announcement"], g["terms"], g["held"]
    combining = a["combining"] or {"sources": [], "multiplicity": 0}
    announced = cohorts.Announced(
        raw(a["run_id"]),
        a["round"],
        a["attempt"],
        raw(a["round_id"]),
        [raw(key) for key in a["cohort"]],
        a["place"] and (a["place"]["level"], a["place"]["group"]),
        combining["sources"],
        combining["multiplicity"],
    )
    terms = cohorts.Terms(**t | {"members": [raw(key) for key in t["members"]]})
    mine = held and cohorts.Held(**held | {"cohort": [raw(key) for key in held["cohort"]]})
    joined = [raw(digest) for digest in g["joined"]]
    cohorts.judge_announcement(announced, terms, raw(g["peer"]), mine, joined)
    return {"accepted": True}


_QUESTIONS: dict[str, Callable[[Json], Json]] = {
    "round-id": _group_round_id,
    "group-sum": _group_sum,
    "delegates": _delegates,
    "parameters": _combining_parameters,
    "announcement": _announcement,
}


def answer_question(g: Json) -> Json:
    """The answer to what `ask` names."""
    return _QUESTIONS[g["ask"]](g)
