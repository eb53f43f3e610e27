"""Vectors of many cohorts in one round: cohorts.json."""

from __future__ import annotations

from functools import partial
from typing import Any

from spec.reference import judge, transcript
from spec.reference.cases_announcements import announcement_cases
from spec.reference.cases_rounds import parameters_json
from spec.reference.output import Case, vector_file
from spec.reference.stream import Stream
from spec.reference.transcript import Parameters

__all__ = ["cohort_files"]

good, bad = partial(judge.good, "cohorts"), partial(judge.bad, "cohorts")


def round_id_cases() -> list[Case]:
    base = {"ask": "round-id", "run_id": bytes(32).hex(), "round": 1, "attempt": 1, "level": 2, "group": 3}
    drawn = base | {"run_id": Stream("cohorts/round-id").take(32).hex(), "round": 100_000, "attempt": 101}
    return [
        good("round-id", "the check value of 08 §2", base, "check-value"),
        good("round-id-first", "level 1, group 0", drawn | {"level": 1, "group": 0}),
        good("round-id-last", "the highest level and group", drawn | {"level": 8, "group": 65535}),
        bad("round-id-level-0", "levels count from 1", base | {"level": 0}, "place"),
        bad("round-id-level-9", "there are eight levels", base | {"level": 9}, "place"),
        bad("round-id-group", "a group is a u16", base | {"group": 65536}, "place"),
    ]


def sum_cases() -> list[Case]:
    base: dict[str, Any] = {"ask": "group-sum", "ring_bits": 32, "value_bits": 24, "contributions": 3}
    base |= {"multiplicity": 1, "weight_at": 2, "weight_lost": False, "sums": [1, 2**32 - 1, 65536]}
    peers = base | {"ring_bits": 20, "value_bits": 16, "contributions": 5, "weight_at": 1}
    peers |= {"sums": [163835, 0, 2**20 - 163835, 7]}
    groups = base | {"value_bits": 16, "contributions": 3, "multiplicity": 5, "sums": [491505, 2**32 - 491505, 0]}
    return [
        good("sum", "the check value of 08 §4: 1, -1, 65536", base, "check-value"),
        good("sum-peers", "the whole range of five peers", peers),
        good(
            "sum-weight-lost", "W is |U|·L = 163835 where the weight's chunk is lost", peers | {"weight_lost": True}
        ),
        good("sum-groups", "of a level between the first and the last: the range is c(U)·M·L", groups),
        good("sum-groups-weight-lost", "W is c(U)·M·L = 491505", groups | {"weight_lost": True}),
        bad("sum-range", "beyond |U|·L", peers | {"sums": [163836, 1, 0, 0]}, "sum-range"),
        bad("sum-groups-range", "below -c(U)·M·L", groups | {"sums": [2**32 - 491506, 0, 1]}, "sum-range"),
    ]


def delegate_cases() -> list[Case]:
    stream = Stream("cohorts/delegates")

    def group(number: int, signers: int, peers: int = 5) -> dict[str, Any]:
        drawn = {"group": number, "round_id": stream.take(32).hex(), "sum_digest": stream.take(32).hex()}
        return drawn | {"signers": [stream.take(32).hex() for _ in range(signers)], "peers": peers}

    def ask(*groups: dict[str, Any]) -> dict[str, Any]:
        return {"ask": "delegates", "groups": list(groups)}

    one, two, three, four = group(0, 4), group(1, 5, 6), group(5, 2, 3), group(63, 1)
    shared = group(2, 2)
    twice = group(3, 2) | {"signers": shared["signers"]}
    turned = one | {"signers": one["signers"][::-1]}
    many = [group(number, 3) for number in range(64)]
    return [
        good("delegates-two-groups", "two each, by identity key; M is of the larger group", ask(one, two)),
        good("delegates-any-order", "the order in which signers came changes nothing", ask(turned, two)),
        good("delegates-three-groups", "two each", ask(one, two, three)),
        good("delegates-four-groups", "one each", ask(one, two, three, four)),
        good("delegates-64-groups", "one cohort, one delegate each", ask(*many)),
        bad("delegates-one-group", "there is nothing to combine", ask(one), "groups"),
        bad("delegates-few-signers", "one signer where two are to be sent", ask(one, four), "signers"),
        bad("delegates-no-signer", "nobody to send", ask(one, two, three, four | {"signers": []}), "signers"),
        bad("delegates-twice", "the same peers would speak for two groups", ask(shared, twice), "two-groups"),
    ]


def parameter_cases() -> list[Case]:
    stream = Stream("cohorts/parameters")

    def ask(
        sources: list[int], masked: list[int], survivors: list[int], multiplicity: int = 5, value_bits: int = 16
    ) -> dict[str, Any]:
        cohort = sorted(stream.take(32) for _ in range(max(4, len(sources))))
        p = Parameters(3, 32, value_bits, 1, 1234, 0.1, stream.take(32), cohort, multiplicity, sources)
        digests = {name: stream.take(32).hex() for name in ("round_id", "plan_digest", "model_digest")}
        given = {"ask": "parameters", "parameters": parameters_json(p), **digests}
        return given | {"masked": masked, "survivors": survivors}

    two, everybody = [0, 1, 1, 0], [0, 1, 2, 3]
    given = ask(two, everybody, everybody)
    other = given | {"parameters": given["parameters"] | {"sources": [0, 1, 0, 1]}}
    wider = given | {"parameters": given["parameters"] | {"multiplicity": 6}}
    return [
        good("parameters-all", "of each group the lowest index in K puts the sum in", given),
        good("parameters-other-sources", "the same delegates, told other groups: another T0", other),
        good("parameters-other-m", "told another M: another T0", wider),
        good(
            "parameters-first-lost",
            "the first of group 0 is not in K: the second puts in",
            ask(two, [1, 2, 3], [1, 2, 3]),
        ),
        good(
            "parameters-lost-later",
            "the one that put in is in K, not in U: its group counts in c(U) by its other delegate",
            ask(two, everybody, [1, 2, 3]),
        ),
        good(
            "parameters-group-gone",
            "one delegate each, one of them not in U: c(U) is 3",
            ask([7, 3, 60, 9], everybody, [0, 2, 3]),
        ),
        good("parameters-64", "64 groups of 64", ask(list(range(64)), list(range(64)), list(range(10, 64)), 64)),
        good("parameters-largest", "2·M·L is just below 2^31", ask(two, everybody, everybody, 32769)),
        bad("parameters-overflow", "2·M·L is 2^31 or more", ask(two, everybody, everybody, 32770), "overflow"),
        bad("parameters-short", "three sources for four delegates", ask([0, 1, 1], everybody, everybody), "sources"),
        bad("parameters-one-group", "all speak for one group", ask([2, 2, 2, 2], everybody, everybody), "sources"),
        bad("parameters-m-small", "no cohort has two peers", ask(two, everybody, everybody, 2), "multiplicity"),
    ]


def check_values() -> None:
    """The numbers that 08 prints."""
    found = transcript.group_round_id(bytes(32), 1, 1, 2, 3).hex()
    if found != "037ad45576c37dfdcef47d7b7365f169b7639f47c6c902695ecc7ecfe9b9d4e1":
        raise AssertionError(f"the check value of 08 §2 is {found}")
    found = transcript.group_sum_digest([1, -1, 65536]).hex()
    if found != "fdb40e47b8ea37798c342ad73641635927b9714609b23794c92fd3e70c9d2164":
        raise AssertionError(f"the check value of 08 §4 is {found}")


def cohort_files() -> dict[str, Case]:
    """Files by name."""
    check_values()
    cases = [*round_id_cases(), *sum_cases(), *delegate_cases(), *parameter_cases(), *announcement_cases()]
    comment = "Many cohorts in one round: ids, groups' sums, delegates, what they put in, and announcements"
    return {"cohorts.json": vector_file("cohorts", "08", comment, cases)}
