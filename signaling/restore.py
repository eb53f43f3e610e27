"""Read back from the store what the registry needs to go on after a restart."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from protocol.encoding import decode_json
from protocol.envelope import PLAN_TYPE, RUN_TYPE, Envelope, open_envelope
from protocol.manifest import decode_manifest
from protocol.signaling import MAX_FRAME_BYTES
from protocol.terms import decode_terms
from signaling.attempt import Attempt
from signaling.errors import StoreError
from signaling.grouped_attempt import GroupedAttempt
from signaling.run_phases import AnyAttempt, RunFacts
from signaling.store import AttemptRow, RunRow, Store

__all__ = ["StoredRun", "facts_of", "restore_runs"]


@dataclass(frozen=True)
class StoredRun:
    """A run as stored, with the cohorts of its open round."""

    row: RunRow
    facts: RunFacts
    attempts: tuple[AnyAttempt, ...]


def restore_runs(store: Store, *, ended: int) -> list[StoredRun]:
    """All open runs and the latest `ended` others; blocking.

    Raises:
        StoreError: a plan is missing.
        ProtocolError: a stored document was changed behind the server's back.
    """
    return [
        StoredRun(row, facts_of(store, row), _attempts(row, store.attempts(row.run, row.round + 1)))
        for row in store.runs_to_restore(ended)
    ]


def _attempts(run: RunRow, rows: list[AttemptRow]) -> tuple[AnyAttempt, ...]:
    """The open round's attempts; results that came before the restart are reported again by those who sent them."""
    attempts: list[AnyAttempt] = []
    for _, stored in itertools.groupby(rows, key=lambda row: row.attempt):
        parts = [
            Attempt(
                run=run.run,
                round=run.round + 1,
                number=row.attempt,
                cohort=row.cohort,
                model_digest=run.model_digest,
                opened_at=row.opened_at,
                place=row.place,
                combining=row.combining,
            )
            for row in stored
        ]
        groups = tuple(part for part in parts if part.combining is None)
        top = next((part for part in parts if part.combining is not None), None)
        attempts.append(parts[0] if parts[0].place is None else GroupedAttempt(groups, top))
    return tuple(attempts)


def facts_of(store: Store, row: RunRow) -> RunFacts:
    """A stored run's documents, verified again."""
    plan = store.plan(row.plan)
    if plan is None:
        raise StoreError(f"run {row.run}: the database holds no plan {row.plan}")
    terms = open_envelope(row.envelope, RUN_TYPE, what=f"stored run {row.run}")
    manifest = open_envelope(plan.envelope, PLAN_TYPE, what=f"stored plan {row.plan}")
    return RunFacts(
        run=row.run,
        plan=row.plan,
        author=row.author,
        terms=decode_terms(terms.payload),
        manifest=decode_manifest(manifest.payload),
        envelope=decode_json(row.envelope, Envelope, what="stored run", max_bytes=MAX_FRAME_BYTES),
        plan_envelope=decode_json(plan.envelope, Envelope, what="stored plan", max_bytes=MAX_FRAME_BYTES),
        opened_at=row.opened_at,
    )
