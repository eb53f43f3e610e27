"""What signaling announces, checked before this node joins: a cohort that the terms allow (spec 06 §3, 08 §3)."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.cohorts import Delegation, check_own_group
from protocol.encoding import Digest
from protocol.errors import ProtocolError
from protocol.identity import PeerId, short
from protocol.round.combining import combining_parameters
from protocol.round.jobs import GroupSum
from protocol.secagg.parameters import RoundParameters
from protocol.signaling import Place, RoundStart, compute_cohort_round_id
from protocol.terms import RunTerms

__all__ = ["HeldSum", "check_announcement", "delegate_parameters", "rival_round_ids"]


@dataclass(frozen=True, kw_only=True)
class HeldSum:
    """The sum of this node's group in one attempt, which it may speak for once."""

    round: int
    attempt: int
    group: int
    parameters: RoundParameters
    total: GroupSum


def check_announcement(start: RoundStart, *, terms: RunTerms, own: PeerId) -> tuple[PeerId, ...]:
    """Check an announcement against the run's terms; gives the cohort.

    Raises:
        ProtocolError: an attempt, id, place or cohort that the terms do not allow.
    """
    name = f"run {short(start.run)}"
    if start.attempt > terms.retries + 1:
        # every attempt trains anew: without this, signaling could have as many sums of one round as it likes
        raise ProtocolError(
            f"{name}: signaling names attempt {start.attempt} at round {start.round}, "
            f"terms say {terms.retries + 1} at most"
        )
    _check_place(start, terms)
    if start.round_id != compute_cohort_round_id(start.run, start.round, start.attempt, start.place):
        raise ProtocolError(f"{name}: round id {short(start.round_id)} is not that of the round")
    cohort = tuple(PeerId(member.peer) for member in start.members)
    delegates = start.combining is not None
    if not delegates and not terms.min_cohort <= len(cohort) <= terms.cohort_size:
        raise ProtocolError(f"{name}: a cohort of {len(cohort)}, terms say {terms.min_cohort} to {terms.cohort_size}")
    if own not in cohort:
        raise ProtocolError(f"{name}: the cohort is named without this peer")
    strangers = set(cohort) - set(terms.members) if terms.members else set()
    if strangers or start.round > terms.rounds:
        raise ProtocolError(
            f"{name}: the cohort names {len(strangers)} peers outside the author's list, "
            f"or round {start.round} of {terms.rounds}"
        )
    return cohort


def rival_round_ids(start: RoundStart, terms: RunTerms) -> tuple[Digest, ...]:
    """Ids of the cohorts of which a peer joins one only: all those that sum updates, or the delegates'.

    One update in two sums of the same attempt could be found by their difference.
    """
    if start.place is not None and start.place.level > 1:
        places: list[Place | None] = [start.place]
    else:
        places = [None, *(Place(level=1, group=group) for group in range(terms.cohorts))]
    return tuple(compute_cohort_round_id(start.run, start.round, start.attempt, place) for place in places)


def delegate_parameters(
    start: RoundStart, held: HeldSum | None, *, cohort: tuple[PeerId, ...], own: PeerId, terms: RunTerms
) -> RoundParameters:
    """Parameters of a cohort of delegates, over the sum this node holds.

    Raises:
        ProtocolError: it holds no sum of this attempt, or the announcement does not fit it.
    """
    name, combining = f"run {short(start.run)}: round {start.round} attempt {start.attempt}", start.combining
    if combining is None or held is None or (held.round, held.attempt) != (start.round, start.attempt):
        raise ProtocolError(f"{name}: named as a delegate, but this node holds no group's sum of that attempt")
    if len(combining.sources) != len(cohort) or max(combining.sources) >= terms.cohorts:
        raise ProtocolError(
            f"{name}: groups {list(combining.sources)} for {len(cohort)} delegates, terms say {terms.cohorts} cohorts"
        )
    source = combining.sources[cohort.index(own)]
    if source != held.group:
        raise ProtocolError(f"{name}: named for group {source}, this node was in group {held.group}")
    if not held.parameters.size <= combining.multiplicity <= terms.cohort_size:
        raise ProtocolError(
            f"{name}: groups of {combining.multiplicity} peers at most, this node's had {held.parameters.size} "
            f"and terms say {terms.cohort_size}"
        )
    delegation = Delegation(cohort=cohort, sources=combining.sources, multiplicity=combining.multiplicity)
    check_own_group(delegation, own, held.parameters.cohort)
    return combining_parameters(held.parameters, delegation, round_id=start.round_id)


def _check_place(start: RoundStart, terms: RunTerms) -> None:
    place, combining = start.place, start.combining
    if place is None:
        fits = combining is None
    elif place.level == 1:
        fits = combining is None and place.group < terms.cohorts
    else:
        fits = combining is not None and place.group == 0
    if not fits or (place is not None and terms.cohorts == 1):
        where = "no place" if place is None else f"level {place.level} group {place.group}"
        raise ProtocolError(
            f"run {short(start.run)}: signaling names {where} {'with' if combining else 'without'} groups to "
            f"combine, terms say {terms.cohorts} cohorts"
        )
