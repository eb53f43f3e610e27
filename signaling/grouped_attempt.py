"""One attempt at a round of many cohorts: every group is tallied, then delegates combine the sums (spec 08).

level 1 --(every group decided or closed; at least two decided)--> level 2 --(threshold of delegates)--> decided
|--(fewer than two groups can still be decided)--> hopeless          '--(as for one cohort)--> hopeless

A second level is never tried again in the same attempt: two sums over different groups would differ by one group's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from protocol.cohorts import FinishedGroup, name_delegates
from protocol.identity import PeerId, short
from protocol.signaling import Combining, GroupCount, Place, Result, RoundStart, codes
from protocol.signaling.base import Member
from signaling.attempt import Attempt, Decision
from signaling.errors import RefusedError

__all__ = ["GroupedAttempt"]

_FEWEST_GROUPS = 2
_FEWEST_SIGNERS = 2
"""Present peers that hold a group's sum: with few groups, each sends two delegates."""


@dataclass
class GroupedAttempt:
    """Tallies of all cohorts; `top` is the delegates', once they are named. `closed` groups are left out."""

    groups: tuple[Attempt, ...]
    top: Attempt | None = None
    closed: dict[int, str] = field(default_factory=dict)

    @property
    def run(self) -> str:
        """The run id."""
        return self.groups[0].run

    @property
    def round(self) -> int:
        """The round attempted."""
        return self.groups[0].round

    @property
    def number(self) -> int:
        """The attempt's number."""
        return self.groups[0].number

    @property
    def opened_at(self) -> float:
        """When the groups were named."""
        return self.groups[0].opened_at

    @property
    def name(self) -> str:
        """For messages to people."""
        return f"run {short(self.run)} round {self.round} attempt {self.number}"

    @cached_property
    def cohort(self) -> tuple[str, ...]:
        """Everybody named, group by group."""
        return tuple(peer for group in self.groups for peer in group.cohort)

    @cached_property
    def _named(self) -> frozenset[str]:
        return frozenset(self.cohort)

    def names(self, peer: str) -> bool:
        """Whether a peer is in the cohort; asked for thousands of peers at a time."""
        return peer in self._named

    @property
    def parts(self) -> tuple[Attempt, ...]:
        """Every cohort; delegates keep the links of their group."""
        return self.groups if self.top is None else (*self.groups, self.top)

    @property
    def standing(self) -> tuple[Attempt, ...]:
        """Cohorts whose members were not told yet that they are left out."""
        return tuple(part for part in self.parts if part is self.top or _number(part) not in self.closed)

    @property
    def deciding(self) -> Attempt | None:
        """The cohort whose result is the round's."""
        return self.top

    def start_for(self, peer: str, member: Callable[[str], Member]) -> RoundStart | None:
        """What a peer is told again after a reconnect: its cohort of the current level. None where that is decided or
        left out: nobody would be there to work with.
        """
        return next((part.start_for(peer, member) for part in self._open() if peer in part.cohort), None)

    def others(self, peer: str) -> tuple[str, ...]:
        """Who shares a cohort with a peer."""
        return tuple(dict.fromkeys(other for part in self._with(peer) for other in part.others(peer)))

    def report(self, peer: str, result: Result, *, min_survivors: int) -> None:
        """Count a report for the cohort that it names.

        Raises:
            RefusedError: no such cohort, metrics of one group, or what `Attempt.report` refuses.
        """
        part = self._part(result.place)
        if part is not self.top and result.metrics:
            raise RefusedError(
                codes.REFUSED, f"{part.name}: got {len(result.metrics)} bytes of metrics; those of a group stay in it"
            )
        fewest = min_survivors if part is not self.top else 0  # delegates stand for groups that met it
        part.report(peer, result, min_survivors=fewest)

    def give_up(self, peer: str, reason: str, place: Place | None = None) -> None:
        """Count a member that stopped in one cohort, or, without a place, in all of its own.

        Raises:
            RefusedError: no such cohort, or not a member.
        """
        parts = self._with(peer) if place is None else (self._part(place),)
        if not parts:
            raise RefusedError(codes.NOT_IN_COHORT, f"{self.name}: {short(peer)} is in none of its cohorts")
        for part in parts:
            part.give_up(peer, reason)

    def went(self, peer: str, now: float) -> None:
        """A member's session ended."""
        for part in self._with(peer):
            part.went(peer, now)

    def came_back(self, peer: str) -> bool:
        """A member has a session again; False where it was not away."""
        back = [part.came_back(peer) for part in self._with(peer)]
        return any(back)

    def signers(self, result: Result) -> tuple[str, ...]:
        """Delegates that signed this very result."""
        return () if self.top is None else self.top.signers(result)

    def decision(self) -> Decision | None:
        """The delegates' decision."""
        return None if self.top is None else self.top.decision()

    def next_absence(self, absence_s: float) -> float | None:
        """When the next absent member that matters will count as lost."""
        times = [at for part in self._open() if (at := part.next_absence(absence_s)) is not None]
        if self.top is None:
            times += [
                group.absent_since[peer] + absence_s
                for group, decision in self._decided()
                for peer in decision.signers
                if peer in group.absent_since and peer not in group.lost
            ]
        return min(times, default=None)

    # The first level's end.

    def close_hopeless(self, now: float, absence_s: float, *, overdue: bool = False) -> list[tuple[Attempt, str]]:
        """Leave out groups that cannot be decided or spoken for any more; gives those that were not closed before,
        with reasons.
        """
        if self.top is not None:
            return []
        news = []
        for group in self._open():
            reason = group.hopeless(now, absence_s)
            if reason is None and overdue:
                reason = f"{group.name}: no result within its deadlines"
            if reason is not None:
                news.append((group, reason))
        for group, decision in self._decided():
            group.count_lost(now, absence_s)
            holders = [peer for peer in decision.signers if peer not in group.lost and peer not in group.failed]
            if len(holders) < _FEWEST_SIGNERS or (overdue and not self._can_speak(group)):
                news.append((group, f"{group.name}: its sum is known, but too few that hold it are there"))
        self.closed |= {_number(group): reason for group, reason in news}
        return news

    @property
    def combinable(self) -> bool:
        """Whether delegates are to be named now: no group is awaited, and peers are there to speak for each."""
        if self.top is not None or self._open():
            return False
        decided = [group for group, _ in self._decided()]
        return len(decided) >= _FEWEST_GROUPS and all(self._can_speak(group) for group in decided)

    def name_delegates(self, now: float) -> Attempt:
        """Name the cohort that combines the decided groups' sums, from peers that are there and hold them."""
        decided = self._decided()
        (delegation,) = name_delegates([_finished(group, decision) for group, decision in decided])
        self.top = Attempt(
            run=self.run,
            round=self.round,
            number=self.number,
            cohort=delegation.cohort,
            model_digest=self.groups[0].model_digest,
            opened_at=now,
            place=Place(level=2, group=0),
            combining=Combining(
                sources=delegation.sources,
                multiplicity=delegation.multiplicity,
                groups=tuple(
                    GroupCount(
                        group=_number(group),
                        members=len(group.cohort),
                        survivors=len(decision.result.survivors),
                    )
                    for group, decision in decided
                ),
            ),
        )
        return self.top

    def hopeless(self, now: float, absence_s: float) -> str | None:
        """Why no result can come of this attempt any more; None while one can."""
        if self.top is not None:
            return self.top.hopeless(now, absence_s)
        if len(self._open()) + len(self._decided()) >= _FEWEST_GROUPS:
            return None
        because = next(iter(self.closed.values()))
        return f"{self.name}: {len(self.closed)} of {len(self.groups)} groups failed; the first: {because}"

    def _with(self, peer: str) -> tuple[Attempt, ...]:
        return tuple(part for part in self.parts if peer in part.cohort)

    def _open(self) -> list[Attempt]:
        """Cohorts of the current level that can still decide."""
        if self.top is not None:
            return [self.top]
        return [group for group in self.groups if _number(group) not in self.closed and group.decision() is None]

    def _decided(self) -> list[tuple[Attempt, Decision]]:
        decided = [(group, group.decision()) for group in self.groups if _number(group) not in self.closed]
        return [(group, decision) for group, decision in decided if decision is not None]

    def _part(self, place: Place | None) -> Attempt:
        for part in self.parts:
            if place is not None and part.place == place:
                return part
        said = "no cohort" if place is None else f"level {place.level} group {place.group}"
        raise RefusedError(
            codes.NOT_IN_COHORT,
            f"{self.name}: {said} was named, expected one of {len(self.groups)} groups"
            + (" or their delegates" if self.top is not None else ""),
        )

    @staticmethod
    def _can_speak(group: Attempt) -> bool:
        decision = group.decision()
        return decision is not None and len(_present(group, decision)) >= _FEWEST_SIGNERS


def _present(group: Attempt, decision: Decision) -> tuple[PeerId, ...]:
    """Peers that have a session and hold the group's sum: they signed it, and did not give up or come back without
    it since.
    """
    signers = (peer for peer in decision.signers if peer not in group.absent_since and peer not in group.failed)
    return tuple(map(PeerId, signers))


def _finished(group: Attempt, decision: Decision) -> FinishedGroup:
    return FinishedGroup(
        group=_number(group),
        round_id=group.round_id,
        sum_digest=decision.result.model_digest,
        signers=_present(group, decision),
        peers=len(group.cohort),
    )


def _number(group: Attempt) -> int:
    assert group.place is not None
    return group.place.group
