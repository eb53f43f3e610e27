"""From one level to the next (spec 08 §4): what a group's members sign, and what its delegates put in."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from protocol.cohorts import Delegation
from protocol.encoding import Digest
from protocol.round.jobs import GroupSum
from protocol.secagg.apply import Aggregate
from protocol.secagg.parameters import RoundParameters
from protocol.terms import COMBINING_RING_BITS

__all__ = ["combining_parameters", "group_sum", "group_sum_digest", "most_peers"]

_MIN_DELEGATES = 3
_SUM_LABEL = b"p2psa/1/group-sum"


def group_sum(aggregate: Aggregate, parameters: RoundParameters, *, model_length: int) -> GroupSum:
    """What a cohort's aggregate counts as at the next level: its sums, the weight made good where its chunk is lost.

    Without that a group whose weight is lost would put in values without weight, and the step would be too long.
    """
    sums = aggregate.sums.copy()
    sums[model_length] = aggregate.weight(model_length, parameters.largest_contribution)
    return GroupSum(sums)


def group_sum_digest(contribution: GroupSum) -> Digest:
    """SHA-256("p2psa/1/group-sum" | sums as i32le): stands in RESULT where a last level has the model's digest."""
    state = hashlib.sha256(_SUM_LABEL)
    state.update(np.ascontiguousarray(contribution.sums, "<i4").data)
    return Digest(state.hexdigest())


def most_peers(parameters: RoundParameters) -> int:
    """The most peers whose updates a cohort's sum can hold."""
    return parameters.contributions(frozenset(range(parameters.size))) * parameters.multiplicity


def combining_parameters(below: RoundParameters, delegation: Delegation, *, round_id: str) -> RoundParameters:
    """Parameters of a cohort of delegates over groups that ran with those of `below`.

    `min_survivors` of the terms counts peers, and every group has met it by itself: delegates need a quorum and no
    more. The ring is the widest there is.

    Raises:
        TermsError: sums of so many peers could overflow the ring.
    """
    return replace(
        below,
        round_id=round_id,
        cohort=delegation.cohort,
        min_survivors=_MIN_DELEGATES,
        ring_bits=COMBINING_RING_BITS,
        multiplicity=delegation.multiplicity,
        sources=delegation.sources,
    )
