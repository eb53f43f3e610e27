"""Read back from the store what the registry needs to go on after a restart."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.encoding import decode_json
from protocol.envelope import PLAN_TYPE, RUN_TYPE, Envelope, open_envelope
from protocol.manifest import decode_manifest
from protocol.signaling import MAX_FRAME_BYTES
from protocol.terms import decode_terms
from signaling.errors import StoreError
from signaling.run_machine import RunFacts
from signaling.store import AttemptRow, RunRow, Store

__all__ = ["StoredRun", "facts_of", "restore_runs"]


@dataclass(frozen=True)
class StoredRun:
    """A run as stored, with the cohorts of its open round."""

    row: RunRow
    facts: RunFacts
    attempts: tuple[AttemptRow, ...]


def restore_runs(store: Store, *, ended: int) -> list[StoredRun]:
    """All open runs and the latest `ended` others; blocking.

    Raises:
        StoreError: a plan is missing.
        ProtocolError: a stored document was changed behind the server's back.
    """
    return [
        StoredRun(row, facts_of(store, row), tuple(store.attempts(row.run, row.round + 1)))
        for row in store.runs_to_restore(ended)
    ]


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
