"""JSON Schemas of the questions and answers of cohorts.json (spec 08)."""

from __future__ import annotations

from spec.schema_parts import (
    BOOLEAN,
    COMBINING_PARAMETERS,
    COUNT,
    ELEMENTS,
    HEX,
    HEX32,
    INTEGERS,
    PLACE,
    RING_BITS,
    SET,
    Schema,
    array,
    const,
    record,
)

__all__ = ["COHORT_ANSWERS", "COHORT_QUESTIONS"]

_KEYS = array(HEX32, maxItems=64)
_GROUP = record(group=COUNT, round_id=HEX32, sum_digest=HEX32, signers=_KEYS, peers=COUNT)
_COMBINING = record(
    sources=array(COUNT, maxItems=64),
    multiplicity=COUNT,
    groups=array(record(group=COUNT, members=COUNT, survivors=COUNT), maxItems=64),
)
_START = record(
    run_id=HEX32,
    round=COUNT,
    attempt=COUNT,
    round_id=HEX32,
    cohort=_KEYS,
    place={"anyOf": [PLACE, {"type": "null"}]},
    combining={"anyOf": [_COMBINING, {"type": "null"}]},
)
_TERMS = record(rounds=COUNT, cohort_size=COUNT, min_cohort=COUNT, cohorts=COUNT, retries=COUNT, members=array(HEX32))
_HELD = record(round=COUNT, attempt=COUNT, group=COUNT, cohort=_KEYS)

COHORT_QUESTIONS: list[Schema] = [
    record(ask=const("round-id"), run_id=HEX32, round=COUNT, attempt=COUNT, level=COUNT, group=COUNT),
    record(
        ask=const("group-sum"),
        ring_bits=RING_BITS,
        value_bits=COUNT,
        contributions=COUNT,
        multiplicity=COUNT,
        weight_at=COUNT,
        weight_lost=BOOLEAN,
        sums=ELEMENTS,
    ),
    record(ask=const("delegates"), groups=array(_GROUP, maxItems=64)),
    record(
        ask=const("parameters"),
        parameters=COMBINING_PARAMETERS,
        round_id=HEX32,
        plan_digest=HEX32,
        model_digest=HEX32,
        masked=SET,
        survivors=SET,
    ),
    record(
        ask=const("announcement"),
        announcement=_START,
        terms=_TERMS,
        peer=HEX32,
        held={"anyOf": [_HELD, {"type": "null"}]},
        joined=array(HEX32),
    ),
]

COHORT_ANSWERS: list[Schema] = [
    record(round_id=HEX32),
    record(sums=INTEGERS, digest=HEX32),
    record(cohort=_KEYS, sources=array(COUNT, maxItems=64), multiplicity=COUNT),
    record(parameters=HEX, t0=HEX32, contributors=SET, contributions=COUNT, range=COUNT),
    record(accepted=const(True)),
]
