"""What many cohorts in one round add (spec 08): groups' sums, delegates, and which announcement a peer takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from spec.reference import transcript
from spec.reference.apply import signed_sums
from spec.reference.quantise import largest
from spec.reference.refused import Refused

__all__ = ["Announced", "Finished", "Held", "Terms", "group_sum", "judge_announcement", "name_delegates"]


def group_sum(
    sums: list[int],
    *,
    ring_bits: int,
    value_bits: int,
    contributions: int,
    multiplicity: int,
    weight_at: int,
    weight_lost: bool,
) -> list[int]:
    """A group's result (§4): its signed sums, the weight's coordinate W as 07 §9 has it."""
    limit = contributions * multiplicity * largest(value_bits)
    out = signed_sums(sums, ring_bits, limit)
    if weight_lost:
        out[weight_at] = limit
    return out


@dataclass(frozen=True)
class Finished:
    """A group whose result is known, who is in its quorum, and the most peers that its sum may hold."""

    group: int
    round_id: bytes
    sum_digest: bytes
    signers: list[bytes]
    peers: int


def name_delegates(groups: list[Finished]) -> tuple[list[bytes], list[int], int]:
    """§3 and §4: the delegates of one cohort by identity key, the group each speaks for, and M."""
    if not 2 <= len(groups) <= 64:
        raise Refused("groups", "08 §3", f"{len(groups)} groups are not combined by one cohort")
    each = 2 if len(groups) <= 3 else 1
    source: dict[bytes, int] = {}
    for group in groups:
        ranked = sorted(
            group.signers, key=lambda key: transcript.delegate_rank(group.round_id, group.sum_digest, key)
        )
        if len(ranked) < each:
            raise Refused("signers", "08 §3", f"group {group.group} has {len(ranked)} peers to send, expected {each}")
        for key in ranked[:each]:
            if key in source:
                raise Refused("two-groups", "08 §3", f"{key.hex()[:8]} would speak for two groups")
            source[key] = group.group
    cohort = sorted(source)
    return cohort, [source[key] for key in cohort], max(group.peers for group in groups)


@dataclass(frozen=True)
class Terms:
    """What of the terms an announcement is held against (spec 06 §1)."""

    rounds: int
    cohort_size: int
    min_cohort: int
    cohorts: int
    retries: int
    members: list[bytes]


@dataclass(frozen=True)
class Held:
    """The group's sum that a peer holds: of which attempt and group, and who was in it."""

    round: int
    attempt: int
    group: int
    cohort: list[bytes]


@dataclass(frozen=True)
class Announced:
    """`round_start` (§3a). `place` is level and group; without `sources` there is no `combining`."""

    run_id: bytes
    round: int
    attempt: int
    round_id: bytes
    cohort: list[bytes]
    place: tuple[int, int] | None = None
    sources: list[int] = field(default_factory=list)
    multiplicity: int = 0

    def id_at(self, place: tuple[int, int] | None) -> bytes:
        """The round id of a cohort of this attempt."""
        if place is None:
            return transcript.round_id(self.run_id, self.round, self.attempt)
        return transcript.group_round_id(self.run_id, self.round, self.attempt, *place)


def judge_announcement(a: Announced, terms: Terms, peer: bytes, held: Held | None, joined: list[bytes]) -> None:
    """Refuse what spec 06 §3 or 08 §3a forbids. `joined` are the round ids this peer ever joined."""
    _check_place(a, terms)
    if a.round > terms.rounds or a.attempt > terms.retries + 1:
        raise Refused("attempt", "06 §3", f"round {a.round} attempt {a.attempt} is beyond the terms")
    if a.round_id != a.id_at(a.place):
        raise Refused("round-id", "06 §3", "the round id is not that of the place")
    if a.cohort != sorted(set(a.cohort)) or peer not in a.cohort:
        raise Refused("cohort", "06 §3", "the cohort is not sorted, names a peer twice, or not this one")
    if terms.members and not set(a.cohort) <= set(terms.members):
        raise Refused("members", "06 §3", "the cohort names peers that the terms do not list")
    if any(a.id_at(place) in joined for place in _rivals(a, terms)):
        raise Refused("joined", "08 §2", "the peer joined a cohort of that attempt already")
    if a.place is not None and a.place[0] > 1:
        _check_delegates(a, terms, peer, held)
    elif not terms.min_cohort <= len(a.cohort) <= terms.cohort_size:
        raise Refused("cohort-size", "06 §3", f"a cohort of {len(a.cohort)}")


def _check_place(a: Announced, terms: Terms) -> None:
    level, group = a.place or (1, 0)
    if a.place is not None and terms.cohorts == 1:
        raise Refused("place-terms", "08 §3a 1", "the terms allow one cohort")
    if group >= terms.cohorts or (level > 1 and group != 0):
        raise Refused("place-group", "08 §3a 1", f"level {level} has no group {group}")
    if (level > 1) != bool(a.sources):
        raise Refused("place-combining", "08 §3a 1", f"level {level} with {len(a.sources)} sources")


def _rivals(a: Announced, terms: Terms) -> list[tuple[int, int] | None]:
    """§2: of the cohorts at these places a peer joins one."""
    if a.place is not None and a.place[0] > 1:
        return [a.place]
    return [None, *((1, group) for group in range(terms.cohorts))]


def _check_delegates(a: Announced, terms: Terms, peer: bytes, held: Held | None) -> None:
    if held is None or (held.round, held.attempt) != (a.round, a.attempt):
        raise Refused("held", "08 §3a 2", "the peer holds no group's sum of that attempt")
    if len(a.sources) != len(a.cohort) or max(a.sources) >= terms.cohorts:
        raise Refused("sources", "08 §3a 3", f"{a.sources} for {len(a.cohort)} delegates")
    if a.sources[a.cohort.index(peer)] != held.group:
        raise Refused("sources-own", "08 §3a 3", f"the peer's group is {held.group}")
    if not len(held.cohort) <= a.multiplicity <= terms.cohort_size:
        raise Refused("multiplicity", "08 §3a 4", f"M is {a.multiplicity}, the peer's group had {len(held.cohort)}")
    for key, source in zip(a.cohort, a.sources, strict=True):
        if (source == held.group) != (key in held.cohort):
            raise Refused("own-group", "08 §3a 5", f"{key.hex()[:8]} speaks for group {source}")
