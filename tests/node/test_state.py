"""A node's state: survives a kill at any time, is held by one process, and says plainly when the disk fails."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.identity import Identity
from python_node.errors import ReceiptError, StateError
from python_node.receipts import Receipt, receipt_time, seal_receipt
from python_node.state import NodeState, load_identity, load_or_create_identity
from tests.node.writing_process import RUN, model_of

OTHER_RUN = "cd" * 32
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def state(folder: Path) -> Iterator[NodeState]:
    with NodeState.open(folder) as opened:
        yield opened


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def save(state: NodeState, round_number: int, model: bytes, run: str = RUN) -> str:
    state.save_checkpoint(run, round_number, model, sha(model))
    return sha(model)


# The folder


def test_folder_and_key_are_for_this_account_alone(state: NodeState, folder: Path) -> None:
    state.identity()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "identity.key").stat().st_mode) == 0o600


def test_empty_folder_is_closed_to_others_and_a_used_one_refused(tmp_path: Path) -> None:
    empty, used = tmp_path / "empty", tmp_path / "used"
    for path in (empty, used):
        path.mkdir()
        path.chmod(0o755)
    NodeState.open(empty).close()
    assert stat.S_IMODE(empty.stat().st_mode) == 0o700
    (used / "letters.txt").write_text("dear")
    with pytest.raises(StateError, match=r"mode 0755, expected 0700\); run: chmod 700"):
        NodeState.open(used)
    assert stat.S_IMODE(used.stat().st_mode) == 0o755


def test_second_process_is_refused_and_told_who_holds_the_folder(state: NodeState, folder: Path) -> None:
    program = (
        f"from pathlib import Path\nfrom python_node.state import NodeState\nNodeState.open(Path({str(folder)!r}))"
    )
    second = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert f"in use by process {os.getpid()}" in second.stderr
    with pytest.raises(StateError, match=f"in use by process {os.getpid()}"):
        NodeState.open(folder)


def test_closed_folder_opens_again(folder: Path) -> None:
    for _ in range(3):
        NodeState.open(folder).close()


def test_closed_state_refuses_writes(folder: Path) -> None:
    state = NodeState.open(folder)
    state.close()
    state.close()
    with pytest.raises(StateError, match="closed"):
        state.record("r", "joined", "")


def test_folder_that_cannot_be_made_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="Not a directory"):
        NodeState.open(tmp_path / "file" / "state")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system nobody can write to")
def test_read_only_folder_is_a_state_error() -> None:
    with pytest.raises(StateError, match="/proc/self/fdinfo"):
        NodeState.open(Path("/proc/self/fdinfo/state"))


def test_database_of_a_newer_version_is_refused_and_left_alone(folder: Path) -> None:
    NodeState.open(folder).close()
    database = sqlite3.connect(folder / "node.db")
    database.execute("PRAGMA user_version = 99")
    database.close()
    for _ in range(2):  # the second time shows that the refusal released the lock
        with pytest.raises(StateError, match="is at migration 99; this version knows 2 at most"):
            NodeState.open(folder)


def test_file_that_is_no_database_is_a_state_error(folder: Path) -> None:
    NodeState.open(folder).close()
    (folder / "node.db").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(StateError, match="file is not a database"):
        NodeState.open(folder)


# Identity


def test_identity_is_made_once_and_kept(folder: Path) -> None:
    with NodeState.open(folder) as first:
        made = first.identity().peer_id
    with NodeState.open(folder) as second:
        assert second.identity().peer_id == made
    assert load_identity(folder / "identity.key").peer_id == made


def test_identity_is_made_in_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    path = tmp_path / "fresh" / "account" / "author.key"
    made = load_or_create_identity(path)
    assert load_identity(path).peer_id == made.peer_id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_nodes_have_two_identities(tmp_path: Path) -> None:
    assert load_or_create_identity(tmp_path / "a").peer_id != load_or_create_identity(tmp_path / "b").peer_id


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_key_that_others_may_use_is_refused_with_the_command_to_run(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "identity.key"
    load_or_create_identity(path)
    path.chmod(mode)
    with pytest.raises(StateError, match=f"mode {mode:04o}, expected 0600\\); run: chmod 600 "):
        load_identity(path)


@pytest.mark.parametrize("content", ["", "ab" * 31, "ab" * 33, "AB" * 32, "zz" * 32, "ab" * 32 + "\n\n"])
def test_damaged_key_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "identity.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(StateError, match="expected 64 lower-case") as caught:
        load_or_create_identity(path)
    assert content[:8] not in str(caught.value) or not content
    assert path.read_text() == content


def test_missing_key_is_not_made_by_load(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="No such file"):
        load_identity(tmp_path / "identity.key")
    assert not (tmp_path / "identity.key").exists()


def test_many_that_make_the_identity_at_once_end_with_one(tmp_path: Path) -> None:
    start = threading.Barrier(8)
    made: list[str] = []

    def make() -> None:
        start.wait()
        made.append(load_or_create_identity(tmp_path / "identity.key").peer_id)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["identity.key"]


# Journal


def test_journal_keeps_order_and_rounds_apart(state: NodeState) -> None:
    state.record("a", "joined", "")
    state.record("b", "vote", "T2")
    state.record("a", "revealed", "b:3")
    assert state.entries("a") == [("joined", ""), ("revealed", "b:3")]
    assert (state.joined("a"), state.joined("b"), state.joined("c")) == (True, False, False)


def test_forgetting_drops_whole_old_rounds_alone(state: NodeState) -> None:
    state.record("old", "joined", "")
    middle = time.time()
    while time.time() <= middle:  # the clock's own resolution
        pass
    state.record("new", "joined", "")
    assert state.forget_before(middle + 1e-9) == 1
    assert (state.joined("old"), state.joined("new")) == (False, True)


def test_threads_record_side_by_side(state: NodeState) -> None:
    def write(name: str) -> None:
        for number in range(20):
            state.record(name, "entry", str(number))

    threads = [threading.Thread(target=write, args=(f"t{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(6):
        assert state.entries(f"t{i}") == [("entry", str(number)) for number in range(20)]


def test_every_commit_waits_for_the_disk(state: NodeState) -> None:
    assert state._database.rows("PRAGMA journal_mode") == [("wal",)]
    assert state._database.rows("PRAGMA synchronous") == [(2,)]  # FULL


# Runs and checkpoints


def test_runs_come_back_in_order_and_whole(state: NodeState) -> None:
    state.save_run(RUN, b"terms", b"plan", "digits")
    state.save_run(OTHER_RUN, b"terms2", b"plan2", "sounds")
    state.save_run(RUN, b"terms", b"plan", "digits2")
    assert [(run.run, run.dataset) for run in state.runs()] == [(RUN, "digits2"), (OTHER_RUN, "sounds")]
    loaded = state.load_run(OTHER_RUN)
    assert loaded is not None
    assert (loaded.terms_envelope, loaded.plan_envelope) == (b"terms2", b"plan2")
    assert state.load_run("ef" * 32) is None


def test_checkpoint_comes_back_and_the_highest_round_is_the_default(state: NodeState) -> None:
    assert state.load_checkpoint(RUN) is None
    first, second = save(state, 1, b"abcd"), save(state, 2, b"efgh")
    assert state.load_checkpoint(RUN) == (2, second, b"efgh")
    assert state.load_checkpoint(RUN, 1) == (1, first, b"abcd")
    assert state.load_checkpoint(RUN, 3) is None
    assert state.load_checkpoint(OTHER_RUN) is None


def test_checkpoint_may_be_given_as_a_view(state: NodeState) -> None:
    model = b"0123" * 8
    state.save_checkpoint(RUN, 1, memoryview(model), sha(model))
    assert state.load_checkpoint(RUN) == (1, sha(model), model)


def test_last_three_checkpoints_and_the_highest_round_stay(state: NodeState, folder: Path) -> None:
    for number in range(1, 6):
        save(state, number, model_of(number))
    assert [c.round for c in state.checkpoints(RUN)] == [3, 4, 5]
    for number in (1, 2, 3):
        save(state, number, model_of(number))
    assert [c.round for c in state.checkpoints(RUN)] == [1, 2, 3, 5]
    assert {path.name for path in (folder / "models").iterdir()} == {c.digest for c in state.checkpoints(RUN)}


def test_model_shared_by_two_runs_outlives_one_of_them(state: NodeState) -> None:
    model = b"same"
    save(state, 1, model)
    save(state, 9, model, run=OTHER_RUN)
    state.forget_run(RUN)
    assert state.load_checkpoint(RUN) is None
    assert state.load_checkpoint(OTHER_RUN) == (9, sha(model), model)


def test_checkpoint_of_another_digest_is_not_kept(state: NodeState) -> None:
    with pytest.raises(StateError, match=f"have digest {sha(b'abcd')}"):
        state.save_checkpoint(RUN, 1, b"abcd", "00" * 32)
    assert state.load_checkpoint(RUN) is None


@pytest.mark.parametrize("digest", ["../node.db", "", "AB" * 32, "ab" * 32 + "\n"])
def test_digest_that_would_name_another_file_is_refused(state: NodeState, digest: str) -> None:
    for call in (lambda: state.blob(digest), lambda: state.save_blob(digest, b"x")):
        with pytest.raises(StateError, match="expected 64 lower-case"):
            call()
    with pytest.raises(StateError, match="expected 64 lower-case"):
        state.save_checkpoint(RUN, 1, b"x", digest)


def test_damaged_or_lost_checkpoint_is_an_error_and_saving_heals_it(state: NodeState, folder: Path) -> None:
    digest = save(state, 1, b"abcdabcd")
    path = folder / "models" / digest
    path.write_bytes(b"abcdabce")
    with pytest.raises(StateError, match=r"entering round 1: .* missing or damaged"):
        state.load_checkpoint(RUN)
    path.unlink()
    with pytest.raises(StateError, match="missing or damaged"):
        state.load_checkpoint(RUN)
    save(state, 1, b"abcdabcd")
    assert state.load_checkpoint(RUN) == (1, digest, b"abcdabcd")


# Blobs


def test_blob_comes_back_and_a_damaged_one_is_as_good_as_absent(state: NodeState, folder: Path) -> None:
    data = b"graph" * 100
    assert state.blob(sha(data)) is None
    state.save_blob(sha(data), data)
    assert state.blob(sha(data)) == data
    (folder / "blobs" / sha(data)).write_bytes(data[:-1])
    assert state.blob(sha(data)) is None
    state.save_blob(sha(data), data)
    assert state.blob(sha(data)) == data


def test_blobs_not_kept_are_forgotten(state: NodeState) -> None:
    for data in (b"a", b"b", b"c"):
        state.save_blob(sha(data), data)
    assert state.forget_blobs(keep={sha(b"b")}) == 2
    assert (state.blob(sha(b"a")), state.blob(sha(b"b"))) == (None, b"b")


# Receipts


def receipt_for(run: str, reason: str) -> Receipt:
    return Receipt(
        run=run,
        plan="02" * 32,
        author="03" * 32,
        name="digits",
        decision="declined",
        rule="authors",
        reason=reason,
        time=receipt_time(0),
    )


def test_receipts_survive_and_are_kept_once(folder: Path) -> None:
    with NodeState.open(folder) as state:
        sealed = [
            seal_receipt(state.identity(), receipt_for(run, reason))
            for run, reason in ((RUN, "no"), (OTHER_RUN, "no"), (RUN, "still no"))
        ]
        for envelope in [*sealed, sealed[0]]:
            state.save_receipt(envelope)
    with NodeState.open(folder) as state:
        assert state.receipts() == sealed
        assert state.receipts(RUN) == [sealed[0], sealed[2]]


def test_receipt_of_another_node_is_not_kept(state: NodeState) -> None:
    with pytest.raises(ReceiptError, match="signed by"):
        state.save_receipt(seal_receipt(Identity(bytes(32)), receipt_for(RUN, "no")))
    assert state.receipts() == []


# Kills and full disks


def write_until_killed(folder: Path, start: int, lines: int, delay_s: float) -> tuple[str, list[tuple[str, int]]]:
    """Kill a writing process `delay_s` after `lines` writes returned; gives its identity and all that had returned.

    The delay waits for nothing: it only lets kills land at any point of a write.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.node.writing_process", str(folder), str(start)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    identity = process.stdout.readline().split()[1]
    done = [process.stdout.readline() for _ in range(lines)]
    at = time.perf_counter() + delay_s
    while time.perf_counter() < at:
        pass
    process.send_signal(signal.SIGKILL)
    done += [line for line in process.stdout if line.endswith("\n")]
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    return identity, [(line.split()[0], int(line.split()[1])) for line in done]


@pytest.mark.slow
def test_nothing_that_returned_is_lost_by_kills_in_the_middle_of_writes(folder: Path) -> None:
    choice = random.Random(2)
    identities, start = set(), 1
    for _ in range(25):
        identity, done = write_until_killed(folder, start, choice.randint(1, 12), choice.uniform(0, 0.006))
        identities.add(identity)
        with NodeState.open(folder) as state:
            for kind, number in done:
                if kind == "joined":
                    assert state.joined(f"round-{number}")
                if kind == "blob":
                    assert state.blob(sha(model_of(number))) == model_of(number)
            saved = [number for kind, number in done if kind == "checkpoint"]
            if saved:
                loaded = state.load_checkpoint(RUN)
                assert loaded is not None
                assert loaded[0] >= saved[-1]
            for kept in state.checkpoints(RUN):
                assert state.load_checkpoint(RUN, kept.round) == (kept.round, kept.digest, model_of(kept.round))
            assert {p.name for p in (folder / "models").iterdir()} == {c.digest for c in state.checkpoints(RUN)}
            assert not list(folder.rglob("*.partial"))
        start = done[-1][1] + 1
    assert len(identities) == 1


def test_what_a_kill_left_half_written_is_swept_at_the_next_opening(folder: Path) -> None:
    with NodeState.open(folder) as state:
        state.identity()
        digest = save(state, 1, b"abcd")
    for name in ("models/00.x.partial", "blobs/00.x.partial", f"models/{'00' * 32}", "identity.key.x.partial"):
        (folder / name).write_bytes(b"half")
    with NodeState.open(folder) as state:
        assert state.load_checkpoint(RUN) == (1, digest, b"abcd")
    assert not list(folder.rglob("*.partial"))
    assert [path.name for path in (folder / "models").iterdir()] == [digest]


FULL_DISK = """
import resource, sys
from pathlib import Path
from python_node.errors import StateError
from python_node.state import NodeState
from tests.node.test_state import RUN, save, sha

with NodeState.open(Path(sys.argv[1])) as state:
    save(state, 1, b"first")
    # files of this process can grow to 200 kB and no further, as on a disk that fills up
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    large = bytes(1_000_000)
    for attempt in (lambda: save(state, 2, large), lambda: state.save_blob(sha(large), large)):
        try:
            attempt()
        except StateError as error:
            print("refused:", error)
    recorded = 0
    try:
        while recorded < 1000:
            state.record(f"r{recorded}", "joined", "x" * 5000)
            recorded += 1
    except StateError as error:
        print("refused:", error)
    assert state.load_checkpoint(RUN) == (1, sha(b"first"), b"first")
    print("recorded:", recorded, flush=True)
    import os
    os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs setrlimit")
def test_full_disk_is_a_state_error_and_loses_nothing_that_returned(folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    refused = [line for line in lines if line.startswith("refused:")]
    assert len(refused) == 3, lines
    assert "File too large" in refused[0]
    assert "state database" in refused[2]
    recorded = int(lines[-1].split()[1])
    assert 0 < recorded < 1000
    with NodeState.open(folder) as state:
        assert state.load_checkpoint(RUN) == (1, sha(b"first"), b"first")
        assert all(state.joined(f"r{number}") for number in range(recorded))
        assert not list(folder.rglob("*.partial"))
