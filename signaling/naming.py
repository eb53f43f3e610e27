"""Naming who works on a round: peers that are ready, arranged in one cohort or in several (spec 08 §2)."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.cohorts import arrange
from protocol.identity import PeerId
from protocol.signaling import Place
from signaling.attempt import Attempt
from signaling.grouped_attempt import GroupedAttempt
from signaling.run_phases import AnyAttempt, RunFacts

__all__ = ["name_cohorts"]


def name_cohorts(
    ready: Sequence[str],
    *,
    facts: RunFacts,
    together: Sequence[str],
    round_number: int,
    number: int,
    model_digest: str,
    opened_at: float,
) -> AnyAttempt:
    """The next attempt. Who was `together` in the last one stays together; who came since follows, as in `ready`.

    Raises:
        TermsError: fewer peers than the terms' `min_cohort`.
    """
    place = {peer: at for at, peer in enumerate(together)}
    cohorts = arrange(
        [PeerId(peer) for peer in sorted(ready, key=lambda peer: place.get(peer, len(place)))],
        size=facts.terms.cohort_size,
        smallest=facts.terms.min_cohort,
        most=facts.terms.cohorts,
    )
    attempts = tuple(
        Attempt(
            run=facts.run,
            round=round_number,
            number=number,
            cohort=cohort,
            model_digest=model_digest,
            opened_at=opened_at,
            place=None if len(cohorts) == 1 else Place(level=1, group=group),
        )
        for group, cohort in enumerate(cohorts)
    )
    return attempts[0] if len(attempts) == 1 else GroupedAttempt(attempts)
