"""Vectors of announcements of many cohorts: what a peer joins, and one refusal for every rule (spec 08 §3a)."""

from __future__ import annotations

from functools import partial
from typing import Any

from spec.reference import judge, transcript
from spec.reference.output import Case
from spec.reference.stream import Stream

__all__ = ["announcement_cases"]

good, bad = partial(judge.good, "cohorts"), partial(judge.bad, "cohorts")
_STREAM = Stream("cohorts/announcements")
_RUN = _STREAM.take(32)
_KEYS = sorted(_STREAM.take(32) for _ in range(12))
_GROUP, _OTHERS = _KEYS[:5], _KEYS[5:]
_DELEGATES = [_KEYS[0], _KEYS[1], _KEYS[5], _KEYS[6]]
_TERMS = {"rounds": 4, "cohort_size": 5, "min_cohort": 3, "cohorts": 3, "retries": 2, "members": []}
_HELD = {"round": 1, "attempt": 1, "group": 0, "cohort": [key.hex() for key in _GROUP]}

Place = tuple[int, int] | None


def _id(place: Place, round_: int = 1, attempt: int = 1) -> str:
    if place is None:
        return transcript.round_id(_RUN, round_, attempt).hex()
    return transcript.group_round_id(_RUN, round_, attempt, *place).hex()


def _combining(sources: list[int], multiplicity: int = 5) -> dict[str, Any]:
    counted = [{"group": group, "members": 5, "survivors": 5} for group in sorted(set(sources))]
    return {"sources": sources, "multiplicity": multiplicity, "groups": counted}


def _ask(
    place: Place,
    cohort: list[bytes],
    *,
    combining: dict[str, Any] | None = None,
    number: tuple[int, int] = (1, 1),
    round_id: str | None = None,
    terms: dict[str, Any] | None = None,
    **rest: object,
) -> dict[str, Any]:
    announced = {
        "run_id": _RUN.hex(),
        "round": number[0],
        "attempt": number[1],
        "round_id": round_id or _id(place, *number),
        "cohort": [key.hex() for key in cohort],
        "place": None if place is None else {"level": place[0], "group": place[1]},
        "combining": combining,
    }
    given = {"ask": "announcement", "announcement": announced, "terms": _TERMS | (terms or {})}
    return given | {"peer": _KEYS[0].hex(), "held": None, "joined": []} | rest


def _delegates(
    cohort: list[bytes] = _DELEGATES, sources: tuple[int, ...] = (0, 0, 1, 1), multiplicity: int = 5, **rest: Any
) -> dict[str, Any]:
    return _ask((2, 0), cohort, combining=_combining([*sources], multiplicity), **{"held": _HELD} | rest)


def _accepted() -> list[Case]:
    larger = {"cohort_size": 6}
    at_last: dict[str, Any] = {"number": (4, 3), "held": _HELD | {"round": 4, "attempt": 3}}
    one_each = [_KEYS[0], _KEYS[6], _KEYS[7], _KEYS[8]]
    return [
        good("announcement-group", "one of the groups", _ask((1, 2), _GROUP)),
        good("announcement-plain", "too few peers for two cohorts: a plain round", _ask(None, _GROUP)),
        good("announcement-smallest", "three peers", _ask((1, 0), _GROUP[:3])),
        good("announcement-last", "the last round and attempt", _ask((1, 0), _GROUP, number=(4, 3))),
        good(
            "announcement-listed",
            "members that the author lists",
            _ask((1, 1), _GROUP, terms={"members": _HELD["cohort"]}),
        ),
        good(
            "announcement-other-attempt",
            "joined in an attempt before",
            _ask((1, 1), _GROUP, number=(1, 2), joined=[_id((1, 1))]),
        ),
        good("announcement-delegates", "two delegates of two groups", _delegates()),
        good(
            "announcement-one-each",
            "one delegate each, of four groups",
            _delegates(one_each, (0, 1, 2, 3), terms={"cohorts": 4}),
        ),
        good(
            "announcement-many-delegates",
            "more delegates than a cohort of level 1 may have peers",
            _delegates([_KEYS[0], _KEYS[1], *_KEYS[5:9]], (0, 0, 1, 1, 2, 2)),
        ),
        good("announcement-larger-m", "another group was larger", _delegates(multiplicity=6, terms=larger)),
        good(
            "announcement-after-group",
            "the group was joined, this is the next level",
            _delegates(joined=[_id((1, 0))]),
        ),
        good("announcement-delegates-last", "in the last round and attempt", _delegates(**at_last)),
    ]


def _refused_places() -> list[Case]:
    combining = _combining([0, 0, 1, 1])
    one = {"cohorts": 1}
    return [
        bad(
            "announcement-terms",
            "§3a 1: a place, the terms allow one cohort",
            _ask((1, 0), _GROUP, terms=one),
            "place-terms",
        ),
        bad(
            "announcement-terms-delegates",
            "§3a 1: delegates, the terms allow one cohort",
            _delegates(sources=(0, 0, 0, 0), terms=one),
            "place-terms",
        ),
        bad("announcement-group-number", "§3a 1: group 3 of 3 cohorts", _ask((1, 3), _GROUP), "place-group"),
        bad(
            "announcement-level-2-group",
            "§3a 1: level 2 has one cohort",
            _ask((2, 1), _DELEGATES, combining=combining, held=_HELD),
            "place-group",
        ),
        bad(
            "announcement-no-combining",
            "§3a 1: level 2 without groups",
            _ask((2, 0), _DELEGATES, held=_HELD),
            "place-combining",
        ),
        bad(
            "announcement-combining-below",
            "§3a 1: level 1 with groups",
            _ask((1, 0), _DELEGATES, combining=combining),
            "place-combining",
        ),
        bad(
            "announcement-combining-plain",
            "§3a 1: no place, with groups",
            _ask(None, _DELEGATES, combining=combining),
            "place-combining",
        ),
        bad(
            "announcement-round-id",
            "06 §3: the id of another group",
            _ask((1, 1), _GROUP, round_id=_id((1, 0))),
            "round-id",
        ),
        bad(
            "announcement-round-id-plain",
            "06 §3: a plain round's id for a group",
            _ask((1, 1), _GROUP, round_id=_id(None)),
            "round-id",
        ),
        bad("announcement-large", "06 §3: more peers than the terms allow", _ask((1, 0), _KEYS[:6]), "cohort-size"),
        bad(
            "announcement-small",
            "06 §3: fewer peers than the terms allow",
            _ask((1, 0), _GROUP[:3], terms={"min_cohort": 4}),
            "cohort-size",
        ),
        bad("announcement-without-peer", "06 §3: the peer is not in the cohort", _ask((1, 0), _KEYS[1:5]), "cohort"),
        bad(
            "announcement-unsorted",
            "06 §3: the cohort is not sorted",
            _ask((1, 0), [_KEYS[0], _KEYS[2], _KEYS[1]]),
            "cohort",
        ),
        bad(
            "announcement-strangers",
            "06 §3: a peer that the author does not list",
            _ask((1, 0), [*_GROUP[:4], _KEYS[7]], terms={"members": _HELD["cohort"]}),
            "members",
        ),
        bad(
            "announcement-attempt",
            "06 §3: one attempt more than the terms allow",
            _ask((1, 0), _GROUP, number=(1, 4)),
            "attempt",
        ),
        bad(
            "announcement-round",
            "06 §3: one round more than the terms allow",
            _ask((1, 0), _GROUP, number=(5, 1)),
            "attempt",
        ),
    ]


def _refused_rivals() -> list[Case]:
    second = "08 §2: one update would be in two sums"
    return [
        bad("announcement-joined", "06 §3: joined before", _ask((1, 0), _GROUP, joined=[_id((1, 0))]), "joined"),
        bad("announcement-second-group", second, _ask((1, 1), _GROUP, joined=[_id((1, 0))]), "joined"),
        bad("announcement-group-after-plain", second, _ask((1, 2), _GROUP, joined=[_id(None)]), "joined"),
        bad("announcement-plain-after-group", second, _ask(None, _GROUP, joined=[_id((1, 2))]), "joined"),
        bad(
            "announcement-second-delegation",
            "08 §2: the cohort of delegates was joined before",
            _delegates(joined=[_id((1, 0)), _id((2, 0))]),
            "joined",
        ),
    ]


def _refused_delegates() -> list[Case]:
    outsider = [_KEYS[0], _KEYS[5], _KEYS[6], _KEYS[7]]
    return [
        bad("announcement-no-sum", "§3a 2: the peer holds no group's sum", _delegates(held=None), "held"),
        bad(
            "announcement-sum-of-attempt",
            "§3a 2: of another attempt",
            _delegates(held=_HELD | {"attempt": 2}),
            "held",
        ),
        bad("announcement-sum-of-round", "§3a 2: of another round", _delegates(held=_HELD | {"round": 2}), "held"),
        bad(
            "announcement-sources-short",
            "§3a 3: three sources for four delegates",
            _delegates(sources=(0, 0, 1)),
            "sources",
        ),
        bad("announcement-sources-long", "§3a 3: five sources", _delegates(sources=(0, 0, 1, 1, 2)), "sources"),
        bad("announcement-sources-group", "§3a 3: group 3 of 3 cohorts", _delegates(sources=(0, 0, 1, 3)), "sources"),
        bad(
            "announcement-sources-own",
            "§3a 3: named for another group than its own",
            _delegates(sources=(1, 1, 0, 0)),
            "sources-own",
        ),
        bad(
            "announcement-m-small",
            "§3a 4: M below the size of the peer's group",
            _delegates(multiplicity=4),
            "multiplicity",
        ),
        bad("announcement-m-large", "§3a 4: M above cohort_size", _delegates(multiplicity=6), "multiplicity"),
        bad(
            "announcement-outsider",
            "§3a 5: a peer that was not in the group speaks for it",
            _delegates(outsider, (0, 0, 1, 1)),
            "own-group",
        ),
        bad(
            "announcement-member-elsewhere",
            "§3a 5: a member of the group speaks for another",
            _delegates(sources=(0, 1, 1, 1)),
            "own-group",
        ),
        bad(
            "announcement-delegates-without-peer",
            "06 §3: the peer is not among the delegates",
            _delegates([_KEYS[1], _KEYS[2], _KEYS[5], _KEYS[6]]),
            "cohort",
        ),
    ]


def announcement_cases() -> list[Case]:
    """Cases whose `ask` is "announcement"."""
    return [*_accepted(), *_refused_places(), *_refused_rivals(), *_refused_delegates()]
