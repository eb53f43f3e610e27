"""What survives a restart: the catalog, runs, cohorts of open rounds and the round log, in SQLite (WAL).

A `Store` belongs to one thread; `signaling.engine` gives it one. Everything in one `apply` is one transaction.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from protocol.encoding import decode_json, encode_json
from protocol.signaling import Combining, LogEntry, Place, PlanEntry, RunState
from signaling.errors import StoreError
from signaling.migrations import migrate
from signaling.outbox import SaveAttempt, SaveEntry, SaveRun, Write

__all__ = ["AttemptRow", "NewPlan", "NewRun", "PlanRow", "RunRow", "Store"]

MAX_ENTRY_BYTES = 1 << 20
OPEN_STATES: tuple[RunState, ...] = ("waiting", "running")


@dataclass(frozen=True, kw_only=True)
class NewPlan:
    """A verified plan: `blobs` are digest and size of each listed blob, `envelope` its JSON."""

    plan: str
    author: str
    name: str
    version: str
    envelope: bytes
    blobs: tuple[tuple[str, int], ...]
    published_at: float


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """A plan as stored."""

    plan: str
    author: str
    envelope: bytes


@dataclass(frozen=True, kw_only=True)
class NewRun:
    """A verified run; `members` are empty where everyone may take part."""

    run: str
    plan: str
    author: str
    name: str
    envelope: bytes
    rounds: int
    members: tuple[str, ...]
    model_digest: str
    opened_at: float


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """A run as stored; `seq` orders runs by when they were opened."""

    seq: int
    run: str
    plan: str
    author: str
    name: str
    envelope: bytes
    rounds: int
    state: RunState
    reason: str
    round: int
    attempt: int
    model_digest: str
    opened_at: float


@dataclass(frozen=True, kw_only=True)
class AttemptRow:
    """A stored cohort."""

    attempt: int
    cohort: tuple[str, ...]
    opened_at: float
    place: Place | None
    combining: Combining | None


_RUN_COLUMNS = (
    "seq, run, plan, author, name, envelope, rounds, state, reason, round, attempt, model_digest, opened_at"
)


class Store:
    """The database of one signaling server."""

    def __init__(self, path: Path, *, synchronous: Literal["FULL", "NORMAL"]) -> None:
        """Open or create it and bring it up to date.

        Raises:
            StoreError: it cannot be opened, or is of a newer version.
        """
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {synchronous}")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.execute("PRAGMA busy_timeout = 5000")
            migrate(self._db)
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {error}") from None

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    # --- catalog -----------------------------------------------------------------------------------------------

    def add_plan(self, plan: NewPlan) -> None:
        """Store a plan once; a second time changes nothing."""
        with self._transaction():
            added = self._db.execute(
                "INSERT INTO plans (plan, author, name, version, envelope, published_at) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (plan) DO NOTHING",
                (plan.plan, plan.author, plan.name, plan.version, plan.envelope, plan.published_at),
            ).rowcount
            if added:
                self._db.executemany(
                    "INSERT INTO plan_blobs (plan, digest, size) VALUES (?, ?, ?)",
                    [(plan.plan, digest, size) for digest, size in plan.blobs],
                )

    def plan(self, plan: str) -> PlanRow | None:
        """A plan by its digest."""
        row = self._db.execute("SELECT plan, author, envelope FROM plans WHERE plan = ?", (plan,)).fetchone()
        return None if row is None else PlanRow(**dict(row))

    def plans(self, after: int, limit: int) -> tuple[tuple[PlanEntry, ...], int | None]:
        """A page of the catalog and where the next begins."""
        rows = self._db.execute(
            "SELECT seq, plan, name, version, author, published_at, NOT EXISTS ("
            "  SELECT 1 FROM plan_blobs p LEFT JOIN blobs b USING (digest)"
            "  WHERE p.plan = plans.plan AND b.digest IS NULL"
            ") AS complete FROM plans WHERE seq > ? ORDER BY seq LIMIT ?",
            (after, limit + 1),
        ).fetchall()
        page = tuple(
            PlanEntry(
                plan=row["plan"],
                name=row["name"],
                version=row["version"],
                author=row["author"],
                published_at=row["published_at"],
                complete=bool(row["complete"]),
            )
            for row in rows[:limit]
        )
        return page, rows[limit - 1]["seq"] if len(rows) > limit else None

    def plans_by(self, author: str) -> int:
        """How many plans an author has published."""
        return int(self._db.execute("SELECT count(*) FROM plans WHERE author = ?", (author,)).fetchone()[0])

    def missing_blobs(self, plan: str) -> list[tuple[str, int]]:
        """Digest and size of the blobs a plan lists and the catalog lacks."""
        rows = self._db.execute(
            "SELECT digest, p.size FROM plan_blobs p LEFT JOIN blobs b USING (digest)"
            " WHERE p.plan = ? AND b.digest IS NULL ORDER BY digest",
            (plan,),
        )
        return [(row[0], row[1]) for row in rows]

    def wanted_blob(self, digest: str, author: str) -> int | None:
        """The size of a missing blob that one of the author's plans lists."""
        row = self._db.execute(
            "SELECT p.size FROM plan_blobs p JOIN plans USING (plan) LEFT JOIN blobs b USING (digest)"
            " WHERE p.digest = ? AND plans.author = ? AND b.digest IS NULL LIMIT 1",
            (digest, author),
        ).fetchone()
        return None if row is None else int(row[0])

    def add_blob(self, digest: str, size: int) -> None:
        """Note that a blob is in its folder."""
        self._db.execute("INSERT INTO blobs (digest, size) VALUES (?, ?) ON CONFLICT DO NOTHING", (digest, size))

    def blob_size(self, digest: str) -> int | None:
        """The size of a stored blob."""
        row = self._db.execute("SELECT size FROM blobs WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else int(row[0])

    def announced_bytes(self) -> int:
        """All blobs that plans list, each once."""
        row = self._db.execute(
            "SELECT coalesce(sum(size), 0) FROM (SELECT max(size) AS size FROM plan_blobs GROUP BY digest)"
        ).fetchone()
        return int(row[0])

    # --- runs --------------------------------------------------------------------------------------------------

    def add_run(self, run: NewRun) -> bool:
        """Store a new run in state "waiting"; False where it is stored already."""
        with self._transaction():
            added = self._db.execute(
                "INSERT INTO runs (run, plan, author, name, envelope, rounds, everyone, state, reason, round,"
                " attempt, model_digest, opened_at) VALUES (?, ?, ?, ?, ?, ?, ?, 'waiting', '', 0, 0, ?, ?)"
                " ON CONFLICT (run) DO NOTHING",
                (
                    run.run,
                    run.plan,
                    run.author,
                    run.name,
                    run.envelope,
                    run.rounds,
                    not run.members,
                    run.model_digest,
                    run.opened_at,
                ),
            ).rowcount
            if added:
                self._db.executemany(
                    "INSERT INTO run_members (run, peer) VALUES (?, ?)", [(run.run, peer) for peer in run.members]
                )
        return bool(added)

    def run(self, run: str) -> RunRow | None:
        """A run by its id."""
        row = self._db.execute(f"SELECT {_RUN_COLUMNS} FROM runs WHERE run = ?", (run,)).fetchone()  # noqa: S608
        return None if row is None else RunRow(**dict(row))

    def may_see(self, run: str, peer: str) -> bool:
        """Whether a run exists and its terms let this peer read about it."""
        row = self._db.execute(
            "SELECT everyone OR author = ? OR EXISTS ("
            "  SELECT 1 FROM run_members m WHERE m.run = runs.run AND peer = ?)"
            " FROM runs WHERE run = ?",
            (peer, peer, run),
        ).fetchone()
        return row is not None and bool(row[0])

    def runs(self, peer: str, plan: str | None, after: int, limit: int) -> tuple[list[RunRow], int | None]:
        """A page of the runs a peer may see, and where the next begins."""
        rows = self._db.execute(
            f"SELECT {_RUN_COLUMNS} FROM runs WHERE seq > ? AND (? IS NULL OR plan = ?) AND (everyone OR author = ?"  # noqa: S608
            " OR EXISTS (SELECT 1 FROM run_members m WHERE m.run = runs.run AND peer = ?)) ORDER BY seq LIMIT ?",
            (after, plan, plan, peer, peer, limit + 1),
        ).fetchall()
        page = [RunRow(**dict(row)) for row in rows[:limit]]
        return page, page[-1].seq if len(rows) > limit else None

    def runs_to_restore(self, ended: int) -> list[RunRow]:
        """All open runs and the latest ended ones, oldest first."""
        rows = self._db.execute(
            f"SELECT {_RUN_COLUMNS} FROM runs WHERE state IN (?, ?) OR seq IN (SELECT seq FROM runs"  # noqa: S608
            " WHERE state NOT IN (?, ?) ORDER BY seq DESC LIMIT ?) ORDER BY seq",
            (*OPEN_STATES, *OPEN_STATES, ended),
        )
        return [RunRow(**dict(row)) for row in rows]

    def attempts(self, run: str, round_number: int) -> list[AttemptRow]:
        """The stored cohorts of one round, by attempt, level and group."""
        rows = self._db.execute(
            "SELECT attempt, level, place, cohort, combining, opened_at FROM attempts WHERE run = ? AND round = ?"
            " ORDER BY attempt, level, place",
            (run, round_number),
        )
        return [
            AttemptRow(
                attempt=row["attempt"],
                cohort=msgspec.json.decode(row["cohort"], type=tuple[str, ...]),
                opened_at=row["opened_at"],
                place=Place(level=row["level"], group=row["place"]) if row["level"] else None,
                combining=row["combining"] and msgspec.json.decode(row["combining"], type=Combining),
            )
            for row in rows
        ]

    def log(self, run: str, first: int, limit: int) -> tuple[tuple[LogEntry, ...], int | None]:
        """A page of a run's log and the round the next begins with."""
        rows = self._db.execute(
            "SELECT round, entry FROM round_log WHERE run = ? AND round >= ? ORDER BY round LIMIT ?",
            (run, first, limit + 1),
        ).fetchall()
        page = tuple(
            decode_json(row["entry"], LogEntry, what="stored log entry", max_bytes=MAX_ENTRY_BYTES)
            for row in rows[:limit]
        )
        return page, rows[limit]["round"] if len(rows) > limit else None

    # --- what the registry wants stored ------------------------------------------------------------------------

    def apply(self, writes: list[Write]) -> None:
        """Carry out writes in one transaction.

        Raises:
            StoreError: the database refuses, for instance because the disk is full.
        """
        try:
            with self._transaction():
                for write in writes:
                    self._apply(write)
        except sqlite3.Error as error:
            raise StoreError(f"database: {error}") from None

    def _apply(self, write: Write) -> None:
        match write:
            case SaveRun():
                self._db.execute(
                    "UPDATE runs SET state = ?, reason = ?, round = ?, attempt = ?, model_digest = ? WHERE run = ?",
                    (write.state, write.reason, write.round, write.attempt, write.model_digest, write.run),
                )
            case SaveAttempt():
                level, place = (0, 0) if write.place is None else (write.place.level, write.place.group)
                self._db.execute(
                    "INSERT INTO attempts (run, round, attempt, level, place, cohort, combining, opened_at)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        write.run,
                        write.round,
                        write.attempt,
                        level,
                        place,
                        encode_json(write.cohort).decode(),
                        None if write.combining is None else encode_json(write.combining).decode(),
                        write.opened_at,
                    ),
                )
            case SaveEntry(entry=entry):
                self._db.execute(
                    "INSERT INTO round_log (run, round, entry) VALUES (?, ?, ?)",
                    (entry.run, entry.round, encode_json(entry)),
                )
                self._db.execute("DELETE FROM attempts WHERE run = ? AND round <= ?", (entry.run, entry.round))

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """BEGIN IMMEDIATE to COMMIT, or ROLLBACK on any error; isolation_level None leaves both to us."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")
