"""What a run machine is told and where it can stand (spec 03 §5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from protocol.envelope import Envelope
from protocol.manifest import PlanManifest
from protocol.signaling import Offer, RunState
from protocol.signaling.base import Member
from protocol.terms import RunTerms
from signaling.attempt import Attempt
from signaling.grouped_attempt import GroupedAttempt

__all__ = ["AnyAttempt", "Ended", "Peers", "Phase", "RunFacts", "Settling", "Waiting", "Working"]

AnyAttempt: TypeAlias = Attempt | GroupedAttempt


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What never changes about a run."""

    run: str
    plan: str
    author: str
    terms: RunTerms
    manifest: PlanManifest
    envelope: Envelope
    plan_envelope: Envelope
    opened_at: float

    @property
    def room(self) -> int:
        """Peers that one round can take."""
        return self.terms.cohort_size * self.terms.cohorts

    def offer(self, round_number: int, model_digest: str) -> Offer:
        """What a fitting node is sent."""
        return Offer(
            run=self.run,
            envelope=self.envelope,
            plan_envelope=self.plan_envelope,
            round=round_number,
            model_digest=model_digest,
        )

    def may_see(self, peer: str) -> bool:
        """Whether a peer may read the run's status and log: anybody where the run has no list of members."""
        return not self.terms.members or peer == self.author or peer in self.terms.members


@dataclass(frozen=True)
class Peers:
    """What the machine may ask about peers: who is online, how to reach them, and who is too busy for a cohort."""

    online: Callable[[str], bool]
    member: Callable[[str], Member]
    busy: Callable[[str, str], bool]
    """busy(peer, run): the peer serves as many other runs as it wants to."""


@dataclass(frozen=True)
class Waiting:
    """Too few peers are ready, or, once `gather_until` is set, more are being waited for."""

    gather_until: float | None = None


@dataclass(frozen=True)
class Working:
    """Cohorts are at work; `overdue_at` is the end of the last stage of those on the current level."""

    attempt: AnyAttempt
    overdue_at: float


@dataclass(frozen=True)
class Settling:
    """`attempt` is decided; its other members and late joiners have until `until`."""

    attempt: AnyAttempt
    until: float
    join_until: float


@dataclass(frozen=True)
class Ended:
    """Nothing more happens; holders of the model can still be asked for."""

    state: RunState
    reason: str = ""


Phase: TypeAlias = Waiting | Working | Settling | Ended
