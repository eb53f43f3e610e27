"""Messages that are false, replayed, in another's name, out of turn or out of range.

Each fails when its guard is taken out (see mutations.py); docs/security/p2psa-1.md says what each is for.
"""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from protocol.round.machine import Stage
from protocol.round.messages import Assign, Certificate, Commit, Decide, Have, Kind, Need, Reveal, Share, Status, Vote
from protocol.secagg.parameters import bits_of
from tests.round.attacks.attacking import (
    N,
    assert_completed,
    before_certificate,
    certificate,
    inject,
    leader,
    lie,
    observed,
)
from tests.round.liars import signed
from tests.round.network import Network
from tests.round.schedules import Plan, Schedule

# Lying, duplicate or corrupt shares and seeds.


@pytest.mark.parametrize("name", ["wrong shares", "wrong seed", "bad boxes"])
def test_lying_shares_cost_time_but_not_the_sum(name: str) -> None:
    for seed in range(6):
        schedule = Schedule(Plan(seed=seed, n=7, lies=((seed % 7, name),)))
        schedule.play()
        survivors = {m.completed.survivors for i, m in enumerate(schedule.members) if m.completed and i != seed % 7}
        assert len(survivors) == 1


def test_seed_that_was_not_committed_to_is_refused() -> None:
    network, victim, t2 = before_certificate()
    inject(network, 3, victim, certificate(network, {0, 2, 3, 4}, {1, 2, 3, 4}, bytes(32), t2))
    assert "another seed than it committed to" in inject(network, 3, victim, Reveal(b"\7" * 32, ()))[0]


def test_recovered_mask_key_must_be_the_advertised_one() -> None:
    network, victim, t2 = before_certificate(4)
    inject(network, 3, victim, certificate(network, {0, 2, 3}, {1, 2, 3}, bytes(32), t2))
    book = network.members[victim].machine._unmasking.book
    for liar in (2, 3):
        inject(network, liar, victim, Reveal(None, ((0, Kind.MASK_KEY, bytes([liar]) * 32),)))
    assert 0 in book.missing  # three shares are here, and they give no key of peer 0


# Replay.


def test_frames_of_another_round_are_refused() -> None:
    old, network = observed(seed="a"), observed(seed="a")
    old.start()
    old.run()
    network.parameters = dataclasses.replace(network.parameters, round_id="ab" * 32)
    fresh = Network(N, seed="a")
    machine = fresh.members[0].machine
    machine._state.post.codec = type(machine._state.post.codec)(network.parameters)
    fresh.start()
    for sender, to, data, bulk in old.sent:
        if to == 0:
            machine.receive(sender, data, bulk=bulk, now=0.0)
    fresh._do(0)
    assert len(fresh.members[0].faults) == sum(to == 0 for _, to, _, _ in old.sent)


def test_commit_to_another_mask_set_is_refused() -> None:
    network, victim, _ = before_certificate()
    reason = inject(network, 3, victim, Commit(b"\1" * 32, bytes(32 * 3)))
    assert "another mask set" in reason[0] or "two different commits" in reason[0]
    network2, victim, _ = before_certificate()
    network2.members[victim].machine._collecting.store._commits.pop(3, None)
    assert "another mask set" in inject(network2, 3, victim, Commit(b"\1" * 32, bytes(32 * 3)))[0]


def test_share_box_of_another_roster_does_not_open() -> None:
    network = observed()
    network.start()
    network.run_until(lambda: network.members[1].machine.stage >= Stage.SHARE)
    machine = network.members[1].machine
    machine._sharing.held.pop(3, None)
    machine._sharing._boxes.pop(3, None)
    assert "does not decrypt" in inject(network, 3, 1, Share(bytes(81)))[0]


# Messages in another's name, out of turn, out of range.


def test_message_in_the_name_of_another_peer_is_refused() -> None:
    network = observed()
    network.start()
    raw = signed(network, 2, Have(0, 1, ()))
    network.members[0].machine.receive(1, raw, bulk=False, now=0.0)
    network._do(0)
    assert "in the name of peer 2" in network.members[0].faults[-1].reason


@pytest.mark.parametrize(
    "message",
    [
        Decide(1, 0, bytes(32), 1 << 5, bytes(32)),
        Decide(1, 5, bytes(32), 1, bytes(32)),
        Have(0, 1 << 63, ()),
        Have(0, 1, ((0, 1 << 40),)),
        Have(0, 1, ((5, 1),)),
        Vote(bytes(32), 1 << 5, bytes(32)),
        Certificate(bytes(32), 1, bytes(32), 1 << 9, (bytes(64),)),
        Certificate(bytes(32), 1 << 9, bytes(32), 1, (bytes(64),)),
        Reveal(None, ((5, 1, bytes(32)),)),
        Status(200, ()),
        Need(1, 1 << 6),
        Need(9, 1),
        Assign(0, 5, 0),
        Assign(0, 0, 5),
    ],
)
def test_index_or_bit_beyond_the_cohort_is_refused(message) -> None:
    network = observed()
    network.start()
    assert inject(network, leader(network) or 1, 0 if leader(network) else 2, message)


def test_decision_by_a_peer_that_does_not_lead_is_refused() -> None:
    network = observed()
    network.start()
    liar = (leader(network) + 2) % N
    to = (liar + 1) % N
    assert "does not lead it" in inject(network, liar, to, Decide(1, 0, network.parameters.t0, 0b11111, bytes(32)))[0]


@pytest.mark.parametrize("kind", [Kind.ROSTER, Kind.MASKED, Kind.SURVIVORS, Kind.LOST])
def test_decision_for_a_later_view_takes_nobodys_place(kind: int) -> None:
    network = observed()
    liar = (leader(network) + 2) % N
    network.observer.liars = frozenset({liar})
    network.start()
    for to in range(N):
        if to != liar:
            inject(network, liar, to, Decide(kind, 2, bytes(32), 0b11111, b"\2" * 32))
            inject(network, liar, to, Decide(kind, 2, network.parameters.t0, 0b11111, b"\2" * 32))
    network.run()
    assert_completed(network, set(range(N)))


def test_attempt_ends_with_the_sum_of_its_deadlines() -> None:
    network = observed()
    network.start()
    machine = network.members[0].machine
    machine.tick(machine._state.end)
    network._do(0)
    assert "took longer than all its deadlines" in network.members[0].failed.reason


def test_leader_that_breaks_a_rule_is_not_waited_for() -> None:
    network = observed(7, min_survivors=6)
    head = leader(network)
    lie(network, head, 2, lambda _, m: [msgspec.structs.replace(m, members=0b111)])
    network.start()
    network.run_until(lambda: all(m.machine.view > 0 for i, m in enumerate(network.members) if i != head))
    assert network.now < network.deadlines.advertise_ms / 1000


def test_valid_decision_for_a_later_view_is_not_adopted_before_that_view() -> None:
    network = observed()
    network.start()
    network.run_until(lambda: any(m.machine.stage is Stage.SHARE for m in network.members))
    machine = next(m.machine for m in network.members if m.machine.stage is Stage.SHARE)
    view = next(v for v in range(1, N) if machine._views.leader_of(v) != machine.own_index)
    few = Decide(Kind.MASKED, view, machine._state.t1, bits_of(set(range(N)) - {machine.leader}), bytes(32))
    inject(network, machine._views.leader_of(view), machine.own_index, few)
    assert machine.stage is Stage.SHARE
    network.run()
    assert_completed(network, set(range(N)))


@pytest.mark.parametrize("stage", [Stage.ADVERTISE, Stage.SHARE, Stage.COLLECT, Stage.UNMASK, Stage.SUM])
def test_silent_leader_is_replaced(stage: Stage) -> None:
    network = observed()
    head = leader(network)

    def mute(sender: int, _to: int, data: bytes, _bulk: bool) -> list[bytes]:  # noqa: FBT001
        decided_late = data[1] in (2, 8) and network.members[head].machine.stage >= stage
        return [] if sender == head and decided_late else [data]

    network.tamper = mute
    network.start()
    network.run()
    others = [m for i, m in enumerate(network.members) if i != head]
    assert all(m.completed is not None for m in others), [m.failed for m in others]
    assert all(m.completed.survivors >= set(range(N)) - {head} for m in others)
    network.observer.end()


@pytest.mark.parametrize("stage", [Stage.ADVERTISE, Stage.SHARE, Stage.COLLECT, Stage.UNMASK, Stage.SUM])
def test_leader_that_says_nothing_more_but_keeps_its_links_is_replaced(stage: Stage) -> None:
    """Its chunk is lost with it, and that too is for the next leader to decide before it is replaced itself."""
    network = observed(7)
    head = leader(network)
    network.tamper = lambda sender, _to, data, _bulk: (
        [] if sender == head and network.members[head].machine.stage >= stage else [data]
    )
    network.start()
    network.run()
    others = [m for i, m in enumerate(network.members) if i != head]
    assert [m.failed for m in others] == [None] * 6
    assert all(m.completed for m in others)
    assert max(m.machine.view for m in others) == 1
    network.observer.end()


@pytest.mark.parametrize("stage", [Stage.ADVERTISE, Stage.SHARE, Stage.COLLECT, Stage.UNMASK, Stage.SUM])
@pytest.mark.parametrize("n", [4, 7])
def test_peer_that_says_nothing_more_but_keeps_its_links_costs_nobody_else_the_round(n: int, stage: Stage) -> None:
    """Whoever it is; leaders wait for its report and then still for the others' votes."""
    for silent in range(n):
        network = observed(n)
        network.start()
        network.run_until(lambda: network.members[silent].machine.stage >= stage)  # noqa: B023 -- called at once
        network.wire = [item for item in network.wire if item[0] != silent]
        network.tamper = lambda sender, _to, data, _bulk: [] if sender == silent else [data]  # noqa: B023
        network.run()
        others = [m for i, m in enumerate(network.members) if i != silent]
        assert [m.failed for m in others] == [None] * (n - 1)
        assert all(m.completed is not None for m in others)
        network.observer.end()


@pytest.mark.parametrize("n", [4, 5, 7])
def test_leader_lost_while_others_train_for_long_costs_only_itself(n: int) -> None:
    """The leaders after it wait as long as it would have: views do not run out before the slowest has trained."""
    network = observed(n)
    head = leader(network)
    slowest = (head + 2) % n
    network.start(without_update=frozenset({slowest}))
    network.run_until(lambda: all(m.machine.stage is Stage.COLLECT for m in network.members))
    network.kill(head)
    trained = network.now + 59
    while network.wire or network.next_due() < trained:
        if network.wire:
            network.deliver()
        else:
            network.step_time()
    network.now = trained
    network.give_update(slowest)
    network.run()
    assert_completed(network, set(range(n)) - {head})


@pytest.mark.parametrize("cut_off", [1, 2, 5])
@pytest.mark.parametrize("kind", [Kind.ROSTER, Kind.MASKED])
def test_peer_that_a_leader_tells_no_decision_has_it_from_the_others(kind: int, cut_off: int) -> None:
    network = observed(7)
    head = leader(network)
    untold = {(head + 1 + i) % 7 for i in range(cut_off)}
    network.tamper = lambda sender, to, data, _bulk: (
        [] if sender == head and to in untold and (data[1], data[12]) == (2, kind) else [data]
    )
    network.start()
    network.run()
    honest = [m for i, m in enumerate(network.members) if i != head]
    assert [m.failed for m in honest] == [None] * 6
    assert len({m.completed.model_digest for m in honest}) == 1
    network.observer.end()


def test_adverts_that_a_leader_keeps_from_some_are_had_from_who_adopted_the_roster() -> None:
    """The leader's own advert is in its roster, and it answers nobody."""
    network = observed(7)
    head = leader(network)
    without = {(head + i) % 7 for i in (1, 2, 4, 5)}
    network.tamper = lambda sender, to, data, _bulk: (
        [] if sender == head and not (data[1] == 2 or (data[1] == 1 and to not in without)) else [data]
    )
    network.start()
    network.run()
    honest = [m for i, m in enumerate(network.members) if i != head]
    assert [m.failed for m in honest] == [None] * 6
    assert len({m.completed.model_digest for m in honest}) == 1
    network.observer.end()


@pytest.mark.parametrize("told", range(1, 6))
def test_leader_that_tells_some_the_roster_and_dies_costs_only_itself(told: int) -> None:
    """The next leader may be one that came to the roster long after others gave up waiting for its shares."""
    network = observed(7)
    head = leader(network)
    network.tamper = lambda sender, to, data, _bulk: (
        [] if sender == head and (data[1] == 3 or (data[1] == 2 and (to - head) % 7 > told)) else [data]
    )
    network.start()
    network.run_until(lambda: network.now > 5)
    network.kill(head)
    network.run()
    assert_completed(network, set(range(7)) - {head}, among=set(range(7)) - {head})


def test_share_that_comes_after_the_deadline_still_counts_where_all_are_needed() -> None:
    network = observed(4)
    head = leader(network)
    dead, slow, other = ((head + step) % 4 for step in (1, 2, 3))
    late: list[bytes] = []

    def delay(sender: int, to: int, data: bytes, _bulk: bool) -> list[bytes]:  # noqa: FBT001
        if (sender, to, data[1]) == (slow, other, 3):
            late.append(data)
            return []
        return [data]

    network.tamper = delay
    network.start()
    network.kill(dead)
    network.run_until(lambda: network.now > 5)
    assert network.members[head].machine.stage is Stage.SHARE
    network.tamper = None
    network.send(slow, other, late[0], False)
    network.run()
    assert_completed(network, {head, slow, other}, among={head, slow, other})


@pytest.mark.parametrize("served", [1, 3, 6])
@pytest.mark.parametrize("mute", [0, 2])
def test_leader_that_gives_the_certificate_to_some_splits_nobody_off(served: int, mute: int) -> None:
    """It says nothing more, nor do `mute` others: who has the certificate reveals, and is asked for it."""
    network = observed(10)
    head = leader(network)
    silent = {(head + i) % 10 for i in range(1 + mute)}
    lucky = [i for i in range(10) if i not in silent][:served]

    def mutter(sender: int, to: int, data: bytes, _bulk: bool) -> list[bytes]:  # noqa: FBT001
        if sender == head and data[1] == 8:
            return [data] if to in lucky else []
        return [] if sender in silent and network.members[sender].machine.stage >= Stage.UNMASK else [data]

    network.tamper = mutter
    network.start()
    network.run()
    others = [m for i, m in enumerate(network.members) if i not in silent]
    assert [m.failed for m in others] == [None] * len(others)
    assert len({m.completed.model_digest for m in others}) == 1
    network.observer.end()


@pytest.mark.parametrize("liars", [1, 2])
@pytest.mark.parametrize("lucky", range(1, 7))
def test_owners_that_send_their_sums_to_some_split_nobody_off(liars: int, lucky: int) -> None:
    """Who has them goes on, the leader among them; the others have them from those, before those give up."""
    network = observed(10)
    head = leader(network)
    lying = {(head + 1 + i) % 10 for i in range(liars)}
    served = {head, *[i for i in range(10) if i not in lying | {head}][: lucky - 1]}
    network.tamper = lambda sender, to, data, _bulk: (
        [] if sender in lying and to not in served and data[1] in (10, 12, 33) else [data]
    )
    network.start()
    network.run()
    honest = [m for i, m in enumerate(network.members) if i not in lying]
    assert [m.failed for m in honest] == [None] * len(honest)
    assert len({m.completed.model_digest for m in honest}) == 1
    assert {m.aggregate.lost for m in honest} == {()}
    network.observer.end()


def test_peer_that_does_not_lead_cannot_have_chunks_sent_to_it() -> None:
    network, victim, _ = before_certificate()
    liar = (leader(network) + 1) % N
    liar = liar if liar != victim else (liar + 1) % N
    before = len(network.sent)
    assert "does not lead it" in inject(network, liar, victim, Assign(0, 0, liar))[0]
    assert len(network.sent) == before


def test_leader_cannot_have_every_chunk_sent_to_everyone() -> None:
    network, victim, _ = before_certificate(7)
    head = leader(network)
    victim = victim if victim != head else 2
    before = sum(data[1] == 32 for s, _, data, _ in network.sent if s == victim)
    for chunk in range(7):
        for owner in range(7):
            inject(network, head, victim, Assign(0, chunk, owner))
    after = sum(data[1] == 32 for s, _, data, _ in network.sent if s == victim)
    assert after - before <= 2 * 7
