"""The state folder of one node.

    lock          held by the process that has the folder open
    identity.key  64 hexadecimal digits, mode 0600
    node.db       SQLite (WAL): runs, checkpoint rows, journal, receipts
    models/       checkpoint bytes by digest
    blobs/        blobs of plans by digest

A checkpoint's file is durable before its row names it, so a kill leaves at worst a file without a row; opening the
folder sweeps those.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Container
from pathlib import Path
from types import TracebackType
from typing import Self

from protocol.identity import Identity
from python_node.errors import StateError
from python_node.receipts import open_receipt
from python_node.state.blob_folder import BlobFolder
from python_node.state.database import Database
from python_node.state.durable import PARTIAL_SUFFIX, as_state_errors
from python_node.state.folder_lock import FolderLock
from python_node.state.identity_file import load_or_create_identity
from python_node.state.records import CheckpointRecord, RunRecord

__all__ = ["KEPT_CHECKPOINTS", "NodeState"]

KEPT_CHECKPOINTS = 3
JOINED = "joined"


class NodeState:
    """Everything a node keeps. Usable from any thread; every write is on disk when its method returns.

    Every method raises `StateError` where the disk is full, the folder cannot be written, or the state is closed.
    """

    def __init__(self, folder: Path, lock: FolderLock, database: Database) -> None:
        """Take what `open` prepared."""
        self._folder = folder
        self._lock = lock
        self._database = database
        self._models_lock = threading.RLock()
        self._models = BlobFolder(folder / "models")
        self._blobs = BlobFolder(folder / "blobs")
        self._identity: Identity | None = None
        if (folder / "identity.key").exists():
            for partial in folder.glob(f"identity.key.*{PARTIAL_SUFFIX}"):
                partial.unlink()
        self._models.forget_except({digest for (digest,) in database.rows("SELECT digest FROM checkpoints")})

    @classmethod
    def open(cls, folder: Path) -> NodeState:
        """Open or create a state folder and take its lock.

        Raises:
            StateError: others may enter the folder, another process has it open, or it cannot be used.
        """
        with as_state_errors(f"state folder {folder}"):
            _prepare_folder(folder)
            lock = FolderLock(folder)
            try:
                database = Database(folder / "node.db")
                try:
                    return cls(folder, lock, database)
                except BaseException:
                    database.close()
                    raise
            except BaseException:
                lock.release()
                raise

    def close(self) -> None:
        """Close the database and give the folder free."""
        self._database.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def identity(self) -> Identity:
        """The node's identity, made on first use.

        Raises:
            StateError: others may read the key file, or it holds no identity.
        """
        if self._identity is None:
            self._identity = load_or_create_identity(self._folder / "identity.key")
        return self._identity

    # Journal of rounds: what must be known after a kill, so that nothing is joined or revealed twice.

    def record(self, round_id: str, entry: str, detail: str) -> None:
        """Append an entry of a round; on disk when this returns."""
        self._database.rows(
            "INSERT INTO journal (round_id, entry, detail, written_at) VALUES (?, ?, ?, ?)",
            *(round_id, entry, detail, time.time()),
        )

    def joined(self, round_id: str) -> bool:
        """Whether this node ever began this attempt at a round; such a one is never begun again."""
        return bool(
            self._database.rows("SELECT 1 FROM journal WHERE round_id = ? AND entry = ? LIMIT 1", round_id, JOINED)
        )

    def entries(self, round_id: str) -> list[tuple[str, str]]:
        """Entry and detail of everything recorded of a round, oldest first."""
        found = self._database.rows("SELECT entry, detail FROM journal WHERE round_id = ? ORDER BY seq", round_id)
        return [(entry, detail) for entry, detail in found]

    def forget_before(self, unix_seconds: float) -> int:
        """Drop rounds whose last entry is older; gives how many entries went.

        A forgotten round could be joined again, so forget only what the signaling server no longer opens.
        """
        dropped = self._database.rows(
            "DELETE FROM journal WHERE round_id IN"
            " (SELECT round_id FROM journal GROUP BY round_id HAVING max(written_at) < ?) RETURNING seq",
            unix_seconds,
        )
        return len(dropped)

    # Runs.

    def save_run(self, run: str, terms_envelope: bytes, plan_envelope: bytes, dataset: str) -> None:
        """Keep a run this node consented to; a second time replaces the dataset."""
        self._database.rows(
            "INSERT INTO runs (run, terms, plan, dataset) VALUES (?, ?, ?, ?) ON CONFLICT (run) DO UPDATE"
            " SET terms = excluded.terms, plan = excluded.plan, dataset = excluded.dataset",
            *(run, terms_envelope, plan_envelope, dataset),
        )

    def runs(self) -> list[RunRecord]:
        """Every run kept, oldest first."""
        found = self._database.rows("SELECT run, terms, plan, dataset FROM runs ORDER BY seq")
        return [_run_record(*row) for row in found]

    def load_run(self, run: str) -> RunRecord | None:
        """One run, or None."""
        found = self._database.rows("SELECT run, terms, plan, dataset FROM runs WHERE run = ?", run)
        return _run_record(*found[0]) if found else None

    def forget_run(self, run: str) -> None:
        """Drop a run, its checkpoints and local parameters; its receipts and journal stay."""
        with self._models_lock:
            with self._database.transaction():
                self._database.rows("DELETE FROM runs WHERE run = ?", run)
                self._database.rows("DELETE FROM local_values WHERE run = ?", run)
                gone = self._database.rows("DELETE FROM checkpoints WHERE run = ? RETURNING digest", run)
            self._forget_models({digest for (digest,) in gone})

    # Local parameters.

    def save_local_values(self, run: str, vector: bytes) -> None:
        """Keep this node's own parameters of a run, little-endian float32, in place of those before."""
        self._database.rows(
            "INSERT INTO local_values (run, vector) VALUES (?, ?) ON CONFLICT (run) DO UPDATE"
            " SET vector = excluded.vector",
            *(run, vector),
        )

    def local_values(self, run: str) -> bytes | None:
        """This node's own parameters of a run, or None."""
        found = self._database.rows("SELECT vector FROM local_values WHERE run = ?", run)
        return found[0][0] if found else None

    # Checkpoints.

    def save_checkpoint(
        self,
        run: str,
        round: int,  # noqa: A002
        model: bytes | memoryview,
        digest: str,
        *,
        keep: int = KEPT_CHECKPOINTS,
    ) -> None:
        """Keep the model entering `round`: little-endian float32 whose SHA-256 is `digest`.

        Of each run the last `keep` that were saved stay, and the one of the highest round.

        Raises:
            StateError: the model has another digest, or cannot be written.
        """
        with self._models_lock:
            self._models.save(digest, model)
            with self._database.transaction():
                before = self._database.rows(
                    "DELETE FROM checkpoints WHERE run = ? AND round = ? RETURNING digest", run, round
                )
                self._database.rows(
                    "INSERT INTO checkpoints (run, round, digest, size) VALUES (?, ?, ?, ?)",
                    *(run, round, digest, memoryview(model).nbytes),
                )
                pruned = self._database.rows(
                    "DELETE FROM checkpoints WHERE run = ?1"
                    " AND seq NOT IN (SELECT seq FROM checkpoints WHERE run = ?1 ORDER BY seq DESC LIMIT ?2)"
                    " AND round < (SELECT max(round) FROM checkpoints WHERE run = ?1) RETURNING digest",
                    *(run, keep),
                )
            self._forget_models({row[0] for row in before + pruned})

    def load_checkpoint(self, run: str, round: int | None = None) -> tuple[int, str, bytes] | None:  # noqa: A002
        """Round, digest and bytes of a checkpoint, by default that of the highest round; None where none is kept.

        Raises:
            StateError: the file is missing or its bytes no longer have the digest.
        """
        with self._models_lock:
            found = [c for c in self.checkpoints(run) if round is None or c.round == round]
            if not found:
                return None
            newest = found[-1]
            model = self._models.load(newest.digest)
        if model is None:
            raise StateError(
                f"checkpoint of run {run[:12]} entering round {newest.round}: the file models/{newest.digest} "
                "is missing or damaged"
            )
        return newest.round, newest.digest, model

    def checkpoints(self, run: str) -> list[CheckpointRecord]:
        """The checkpoints kept of a run, by round."""
        found = self._database.rows(
            "SELECT run, round, digest, size FROM checkpoints WHERE run = ? ORDER BY round", run
        )
        return [CheckpointRecord(run=row[0], round=row[1], digest=row[2], size=row[3]) for row in found]

    def _forget_models(self, digests: set[str]) -> None:
        for digest in digests:
            if not self._database.rows("SELECT 1 FROM checkpoints WHERE digest = ? LIMIT 1", digest):
                self._models.forget(digest)

    # Blobs of plans: a cache, so a damaged one is as good as absent and is fetched again.

    def blob(self, digest: str) -> bytes | None:
        """A blob's bytes, checked against the digest, or None."""
        return self._blobs.load(digest)

    def save_blob(self, digest: str, data: bytes) -> None:
        """Keep a blob.

        Raises:
            StateError: the bytes have another digest, or cannot be written.
        """
        self._blobs.save(digest, data)

    def forget_blobs(self, *, keep: Container[str]) -> int:
        """Delete every blob whose digest is not in `keep`; gives how many."""
        return self._blobs.forget_except(keep)

    # Receipts.

    def save_receipt(self, envelope: bytes) -> None:
        """Keep a receipt signed by this node; the same bytes are kept once.

        Raises:
            ReceiptError: it is no receipt, or another node's.
        """
        receipt = open_receipt(envelope, node=self.identity().peer_id)
        self._database.rows(
            "INSERT INTO receipts (run, envelope) VALUES (?, ?) ON CONFLICT (envelope) DO NOTHING",
            *(receipt.run, envelope),
        )

    def receipts(self, run: str | None = None) -> list[bytes]:
        """Signed receipts as saved, oldest first; of one run where `run` is given."""
        found = self._database.rows("SELECT envelope FROM receipts WHERE ?1 IS NULL OR run = ?1 ORDER BY seq", run)
        return [envelope for (envelope,) in found]


def _run_record(run: str, terms: bytes, plan: bytes, dataset: str) -> RunRecord:
    return RunRecord(run=run, terms_envelope=terms, plan_envelope=plan, dataset=dataset)


def _prepare_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name != "posix":
        return
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077 and not any(folder.iterdir()):
        folder.chmod(0o700)
    elif mode & 0o077:
        raise StateError(
            f"state folder {folder}: others may enter it (mode {mode:04o}, expected 0700); run: chmod 700 {folder}"
        )
