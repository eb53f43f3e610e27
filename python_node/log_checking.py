"""Checking what a signaling server says was logged: only a quorum's signatures make a model a run's model."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection
from typing import Literal

from protocol.encoding import digest_of
from protocol.errors import ProtocolError
from protocol.identity import PeerId, short
from protocol.manifest import PlanManifest
from protocol.server_optimizer import ServerOptimizer, initial_moments
from protocol.signaling import (
    Combining,
    LogEntry,
    Place,
    check_result_signature,
    compute_cohort_round_id,
    result_payload,
)
from protocol.terms import RunTerms, threshold

__all__ = ["check_entry", "check_initial_model", "check_own_delegates"]

_MOST_DELEGATES = 2
"""Of one group in one round (spec 08 §3)."""


def check_entry(entry: LogEntry, *, run: str, number: int, digest: str, terms: RunTerms) -> None:
    """Check that a quorum of a cohort that the terms allow signed a model's digest (spec 06 §3).

    Raises:
        ProtocolError: another round or digest, a cohort or survivors the terms do not allow, or too few valid
            signatures.
    """
    if (entry.run, entry.round, entry.model_digest) != (run, number, digest):
        raise ProtocolError(f"run {short(run)}: signaling's log has no round {number} with model {short(digest)}")
    if entry.round_id != compute_cohort_round_id(run, number, entry.attempt, _last_place(entry)):
        # the signatures are over the id: without this, those of another round or run would pass
        raise ProtocolError(f"run {short(run)}: round id {short(entry.round_id)} is not that of round {number}")
    _check_cohort(entry, terms)
    payload = result_payload(entry.round_id, entry.model_digest, entry.survivors, entry.metrics)
    signers = set()
    for item in entry.signatures:
        if item.index < len(entry.cohort):
            check_result_signature(entry.cohort[item.index], payload, item.signature)
            signers.add(item.index)
    if len(signers) < threshold(len(entry.cohort)):
        raise ProtocolError(
            f"run {short(run)}: {len(signers)} peers signed round {number}, "
            f"expected {threshold(len(entry.cohort))} of {len(entry.cohort)}"
        )
    fewest = threshold(len(entry.cohort))
    if entry.combining is None:
        fewest = max(fewest, terms.min_survivors)  # of delegates, each speaks for a group that met it by itself
    if len(entry.survivors) < fewest:
        raise ProtocolError(
            f"run {short(run)}: round {number} is a sum over {len(entry.survivors)} peers, expected {fewest} or more"
        )
    if entry.survivors[-1] >= len(entry.cohort):
        raise ProtocolError(
            f"run {short(run)}: round {number} names survivor {entry.survivors[-1]} of {len(entry.cohort)} peers"
        )


def check_own_delegates(entry: LogEntry, *, own: PeerId, group: int, cohort: Collection[PeerId]) -> None:
    """Check what a member of a group can check of a logged round: who spoke for its group, and for others.

    Raises:
        ProtocolError: a delegate of the group was not in it, or a member of it spoke for another.
    """
    if entry.combining is None:
        raise ProtocolError(f"run {short(entry.run)}: {short(own)} was in group {group}, but no groups are logged")
    for peer, source in zip(entry.cohort, entry.combining.sources, strict=True):
        if (peer in cohort) != (source == group):
            raise ProtocolError(
                f"run {short(entry.run)}: round {entry.round} was logged with {short(peer)} speaking for group "
                f"{source}, in group {group} were {len(cohort)} others"
            )


def _last_place(entry: LogEntry) -> Place | None:
    """Of many cohorts, the log holds the last one's result: the delegates'."""
    return None if entry.combining is None else Place(level=2, group=0)


def _check_cohort(entry: LogEntry, terms: RunTerms) -> None:
    """Signaling writes the cohort down, so it counts only as far as the author's terms allow it."""
    name, size = f"run {short(entry.run)}: round {entry.round} attempt {entry.attempt}", len(entry.cohort)
    if entry.round > terms.rounds or entry.attempt > terms.retries + 1:
        raise ProtocolError(f"{name}: terms say {terms.rounds} rounds of {terms.retries + 1} attempts")
    if entry.combining is not None:
        _check_delegates(entry, entry.combining, terms)
    elif not terms.min_cohort <= size <= terms.cohort_size:
        raise ProtocolError(
            f"{name}: a cohort of {size} is logged, terms say {terms.min_cohort} to {terms.cohort_size}"
        )
    if list(entry.cohort) != sorted(set(entry.cohort)):
        # one key at several indexes would count as several signers
        raise ProtocolError(f"{name}: the logged cohort is not sorted, or names a peer twice")
    strangers = set(entry.cohort) - set(terms.members) if terms.members else set()
    if strangers:
        raise ProtocolError(f"{name}: the logged cohort names {len(strangers)} peers outside the author's list")


def _check_delegates(entry: LogEntry, combining: Combining, terms: RunTerms) -> None:
    """Which groups there were is signaling's word; what the terms do not allow counts for nothing."""
    groups = {item.group for item in combining.groups}
    spoken_for = Counter(combining.sources)
    if (
        terms.cohorts == 1
        or max(groups) >= terms.cohorts
        or len(combining.sources) != len(entry.cohort)
        or len(groups) != len(combining.groups)
        or spoken_for.keys() != groups
        or max(spoken_for.values()) > _MOST_DELEGATES
    ):
        raise ProtocolError(
            f"run {short(entry.run)}: round {entry.round} is logged with {len(entry.cohort)} delegates of groups "
            f"{sorted(groups)}, terms say {terms.cohorts} cohorts, each with one delegate or two"
        )
    for item in combining.groups:  # nobody signs these counts, but people are shown them
        if not (
            terms.min_cohort <= item.members <= terms.cohort_size
            and max(threshold(item.members), terms.min_survivors) <= item.survivors <= item.members
        ):
            raise ProtocolError(
                f"run {short(entry.run)}: round {entry.round} is logged with {item.survivors} of {item.members} "
                f"peers in group {item.group}, terms say cohorts of {terms.min_cohort} to {terms.cohort_size} "
                f"and sums over at least {terms.min_survivors}"
            )


def check_initial_model(manifest: PlanManifest, optimizer: ServerOptimizer, data: bytes) -> None:
    """Check that bytes are the model a run starts from: its plan's initial theta and buffers, then fresh moments.

    Raises:
        ProtocolError: other bytes than the signed manifest names (zeros, where it names none).
    """
    at = 4 * manifest.shared_count
    end = at + 4 * manifest.buffer_count
    parts: dict[Literal["theta", "buffers"], bytes] = {"theta": data[:at], "buffers": data[at:end]}
    for role, part in parts.items():
        named = manifest.initial.get(role)
        if any(part) if named is None else digest_of(part) != named:
            raise ProtocolError(f"plan {manifest.name}: a peer sent other {role} than those the plan starts from")
    fresh = (struct.pack("<f", value) * manifest.shared_count for value in initial_moments(optimizer))
    if data[end:] != b"".join(fresh):
        raise ProtocolError(
            f"plan {manifest.name}: a peer sent other moments than those {optimizer.kind} starts from"
        )
