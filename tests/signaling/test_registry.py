"""The registry alone: no sockets, time is a number, and whole runs replay."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.encoding import digest_of
from protocol.manifest import encode_manifest
from protocol.signaling import (
    Accept,
    MemberSignature,
    PeerGone,
    Ready,
    Register,
    Result,
    RoundAborted,
    RoundFailed,
    RoundLogged,
    RoundStart,
    RunChanged,
    Withdraw,
    sign_result,
)
from protocol.terms import encode_terms
from signaling.config import Limits, Timing
from signaling.errors import RefusedError
from signaling.outbox import Outbox, SaveAttempt, SaveEntry
from signaling.registry import Registry
from signaling.run_phases import RunFacts, Settling, Waiting, Working
from tests.signaling.world import dataset, identity, manifest, plan_envelope, run_envelope, terms

AUTHOR = identity("author")
MODEL = "cd" * 32


class Desk:
    """A registry with a clock that stands still until it is moved."""

    def __init__(self, count: int = 5, *, timing: Timing | None = None, **changes) -> None:
        ids = itertools.count(1)
        self.registry = Registry(limits=Limits(), timing=timing or Timing(), new_id=lambda: f"{next(ids):064x}")
        self.now = 1000.0
        self.sent: list[tuple[str, object]] = []
        self.writes: list = []
        self._id = itertools.count(1)
        plan = digest_of(encode_manifest(manifest()))
        self.terms = terms(plan, **changes)
        self.facts = RunFacts(
            run=digest_of(encode_terms(self.terms)),
            plan=plan,
            author=AUTHOR.peer_id,
            terms=self.terms,
            manifest=manifest(),
            envelope=run_envelope(AUTHOR, self.terms),
            plan_envelope=plan_envelope(AUTHOR),
            opened_at=self.now,
        )
        self.take(self.registry.open_run(self.facts, MODEL, self.now))
        self.nodes = {identity(f"n{i}").peer_id: identity(f"n{i}") for i in range(count)}
        for peer in self.nodes:
            self.connect(peer)

    @property
    def run(self):
        return self.registry.runs[self.facts.run]

    def take(self, out: Outbox) -> None:
        self.writes += out.writes
        self.sent += [(peer, send.message) for send in out.sends for peer in send.peers]

    def do(self, peer: str, kind, **fields) -> None:
        self.take(self.registry.handle(peer, kind(id=next(self._id), **fields), self.now))

    def connect(self, peer: str) -> None:
        self.take(self.registry.connected(peer))
        self.do(peer, Register, datasets=(dataset(),))

    def join(self, *peers: str) -> None:
        for peer in peers or self.nodes:
            self.do(peer, Accept, run=self.facts.run)
            self.do(peer, Ready, run=self.facts.run, round=self.run.round, model_digest=self.run.model_digest)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.registry.timer(self.now))

    def last(self, kind, peer: str | None = None):
        found = [m for to, m in self.sent if isinstance(m, kind) and peer in (None, to)]
        return found[-1] if found else None

    def report(self, peer: str, start: RoundStart, *, model: str = "ee" * 32, survivors=None) -> None:
        cohort = [member.peer for member in start.members]
        survivors = tuple(range(len(cohort))) if survivors is None else survivors
        signature = sign_result(
            self.nodes[peer], round_id=start.round_id, model_digest=model, survivors=survivors, metrics=b"{}"
        )
        self.do(
            peer,
            Result,
            run=start.run,
            round=start.round,
            attempt=start.attempt,
            model_digest=model,
            survivors=survivors,
            metrics=b"{}",
            signatures=(MemberSignature(index=cohort.index(peer), signature=signature),),
        )


def test_the_first_cohort_waits_for_more_peers_but_not_longer_than_said():
    desk = Desk(4)
    desk.join(*list(desk.nodes)[:3])
    assert desk.last(RoundStart) is None
    assert desk.registry.next_deadline() == desk.now + Timing().gather_s
    desk.pass_time(Timing().gather_s)
    assert len(desk.last(RoundStart).members) == 3


def test_a_full_cohort_starts_without_waiting_and_ascends_by_peer_id():
    desk = Desk(5)
    desk.join()
    members = [member.peer for member in desk.last(RoundStart).members]
    assert members == sorted(desk.nodes)


def test_the_cohort_is_stored_in_the_same_outbox_that_announces_it():
    desk = Desk(3, cohort_size=3)
    desk.join(*list(desk.nodes)[:2])
    last = list(desk.nodes)[2]
    desk.do(last, Accept, run=desk.facts.run)
    out = desk.registry.handle(last, Ready(id=9, run=desk.facts.run, round=0, model_digest=MODEL), desk.now)
    assert any(isinstance(send.message, RoundStart) for send in out.sends)
    assert any(isinstance(write, SaveAttempt) for write in out.writes)


def test_the_next_round_starts_with_the_last_report_and_keeps_the_same_members():
    desk = Desk(6)
    desk.join()
    first = desk.last(RoundStart)
    cohort = [member.peer for member in first.members]
    for peer in cohort:
        desk.report(peer, first)
    second = desk.last(RoundStart)
    assert (second.round, second.attempt) == (2, 1)
    assert [member.peer for member in second.members] == cohort
    assert second.model_digest == "ee" * 32


def test_a_silent_member_delays_the_next_round_by_the_settling_time_and_is_left_out():
    desk = Desk(5)
    desk.join()
    first = desk.last(RoundStart)
    silent, *others = [member.peer for member in first.members]
    for peer in others:
        desk.report(peer, first)
    assert desk.last(RoundLogged).entry.round == 1
    assert isinstance(desk.run.phase, Settling)
    desk.pass_time(Timing().settle_s)
    assert silent not in [member.peer for member in desk.last(RoundStart).members]
    desk.report(silent, first)
    assert silent in desk.run.holders()


def test_an_absent_member_counts_as_failed_after_the_grace_and_not_before():
    desk = Desk(3, cohort_size=3)
    desk.join()
    gone = next(iter(desk.nodes))
    desk.take(desk.registry.disconnected(gone, "lost", desk.now))
    assert desk.last(PeerGone).peer == gone
    desk.pass_time(Timing().absence_s - 1)
    assert desk.last(RoundAborted) is None
    desk.pass_time(1)
    assert "1 lost" in desk.last(RoundAborted).reason
    assert desk.run.phase == Waiting()


def test_an_attempt_ends_with_the_sum_of_its_deadlines():
    desk = Desk(3, cohort_size=3)
    desk.join()
    total = sum(msgspec.structs.astuple(desk.terms.deadlines)) / 1000
    desk.pass_time(total)
    assert desk.last(RoundAborted) is None
    desk.pass_time(Timing().settle_s)
    assert "within its deadlines" in desk.last(RoundAborted).reason
    assert desk.last(RoundStart).attempt == 2


def test_a_late_result_of_an_earlier_attempt_decides_the_round_once():
    desk = Desk(3, cohort_size=3)
    desk.join()
    first = desk.last(RoundStart)
    peers = [member.peer for member in first.members]
    desk.do(peers[0], RoundFailed, run=first.run, round=1, attempt=1, reason="gave up")
    second = desk.last(RoundStart)
    assert second.attempt == 2
    for peer in peers:
        desk.report(peer, first)
    assert desk.last(RoundLogged).entry.attempt == 1
    with pytest.raises(RefusedError) as refused:
        desk.report(peers[0], second, model="ff" * 32)
    assert refused.value.code == "round-closed"
    assert sum(isinstance(write, SaveEntry) for write in desk.writes) == 1


def test_two_results_signed_by_one_member_are_refused():
    desk = Desk(5)
    desk.join()
    start = desk.last(RoundStart)
    peer = start.members[0].peer
    desk.report(peer, start)
    with pytest.raises(RefusedError, match="already signed another result"):
        desk.report(peer, start, model="dd" * 32)


@pytest.mark.parametrize("survivors", [(), (0, 1), (0, 1, 5), (2, 1, 0)])
def test_impossible_survivor_sets_are_refused(survivors):
    desk = Desk(5)
    desk.join()
    start = desk.last(RoundStart)
    cohort = start.members
    with pytest.raises(RefusedError):
        desk.do(
            cohort[0].peer,
            Result,
            run=start.run,
            round=1,
            attempt=1,
            model_digest="ee" * 32,
            survivors=survivors,
            metrics=b"",
            signatures=(MemberSignature(index=0, signature=bytes(64)),),
        )


def test_a_stale_model_is_refused_and_names_the_current_round():
    desk = Desk(3, cohort_size=3)
    peer = next(iter(desk.nodes))
    desk.do(peer, Accept, run=desk.facts.run)
    with pytest.raises(RefusedError, match="is at round 0") as refused:
        desk.do(peer, Ready, run=desk.facts.run, round=3, model_digest=MODEL)
    assert refused.value.code == "stale-model"


def test_a_late_joiner_that_never_gets_ready_stalls_a_run_twice_at_most():
    desk = Desk(4, rounds=10)
    nodes = list(desk.nodes)
    desk.join(*nodes[:3])
    desk.pass_time(Timing().gather_s)
    desk.do(nodes[3], Accept, run=desk.facts.run)
    waits = 0
    for number in range(1, 6):
        start = desk.last(RoundStart)
        assert start.round == number
        for peer in nodes[:3]:
            desk.report(peer, start, model=f"{number:064x}")
        if isinstance(desk.run.phase, Settling):
            waits += 1
            desk.pass_time(Timing().join_s)
    assert waits == 2


def test_a_busy_node_is_named_again_when_its_other_run_lets_it_go():
    desk = Desk(3, cohort_size=3)
    for peer in desk.nodes:
        desk.do(peer, Register, datasets=(dataset(),), max_runs=1)
    desk.join()
    other_terms = terms(desk.facts.plan, nonce="22" * 32, cohort_size=3)
    other = dataclasses.replace(desk.facts, run=digest_of(encode_terms(other_terms)), terms=other_terms)
    desk.take(desk.registry.open_run(other, MODEL, desk.now))
    for peer in desk.nodes:
        desk.do(peer, Accept, run=other.run)
        desk.do(peer, Ready, run=other.run, round=0, model_digest=MODEL)
    assert isinstance(desk.registry.runs[other.run].phase, Waiting)
    for peer in list(desk.nodes):
        desk.do(peer, Withdraw, run=desk.facts.run)
        if isinstance(desk.registry.runs[other.run].phase, Working):
            break
    assert isinstance(desk.registry.runs[other.run].phase, Working)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["join", "leave", "report", "lie", "fail", "withdraw", "wait"]),
        st.integers(min_value=0, max_value=5),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(EVENTS)
def test_whatever_happens_rounds_are_logged_once_in_order_and_by_a_threshold(events):
    desk = Desk(6, retries=3)
    peers = list(desk.nodes)
    online = set(peers)
    for kind, number in events:
        peer = peers[number]
        with contextlib.suppress(RefusedError):
            perform(desk, kind, peer, online)
        deadline = desk.registry.next_deadline()
        assert desk.run.ended or deadline is not None or isinstance(desk.run.phase, Waiting)
    rounds = [write.entry for write in desk.writes if isinstance(write, SaveEntry)]
    assert [entry.round for entry in rounds] == list(range(1, len(rounds) + 1))
    model = MODEL
    for entry in rounds:
        assert entry.previous_digest == model
        assert len(entry.signatures) >= 2 * len(entry.cohort) // 3 + 1
        model = entry.model_digest
    ends = [m for to, m in desk.sent if isinstance(m, RunChanged) and m.status.state in ("finished", "failed")]
    assert bool(ends) <= desk.run.ended


def perform(desk: Desk, kind: str, peer: str, online: set[str]) -> None:
    start = desk.last(RoundStart, peer)
    if kind == "wait":
        deadline = desk.registry.next_deadline()
        desk.pass_time(1 if deadline is None else max(0.0, deadline - desk.now))
    elif kind == "leave" and peer in online:
        online.discard(peer)
        desk.take(desk.registry.disconnected(peer, "lost", desk.now))
    elif kind == "join":
        if peer not in online:
            online.add(peer)
            desk.connect(peer)
        desk.join(peer)
    elif peer in online and start is not None and kind in ("report", "lie"):
        honest = f"{start.round:064x}"
        desk.report(peer, start, model=honest if kind == "report" else "f" * 64)
    elif peer in online and start is not None and kind == "fail":
        desk.do(peer, RoundFailed, run=start.run, round=start.round, attempt=start.attempt, reason="x")
    elif peer in online and kind == "withdraw":
        desk.do(peer, Withdraw, run=desk.facts.run)
