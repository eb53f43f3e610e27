"""One peer that must not cost the others the round, memory or work.

Each fails when its guard is taken out (see mutations.py); docs/security/p2psa-1.md says what each is for.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from protocol.round.errors import MessageError
from protocol.round.machine import Stage
from protocol.round.messages import Assign, Chunk, Decide, Have, Kind, Need, Status, Sum
from protocol.secagg.parameters import bits_of
from tests.round.attacks.attacking import (
    N,
    assert_completed,
    before_certificate,
    inject,
    leader,
    lie,
    observed,
    reach,
)
from tests.round.liars import REWRITES, signed
from tests.round.schedules import Plan, Schedule

# Denial of service by one peer that must not cost the others the round.


@pytest.mark.parametrize(
    "name",
    [
        "small order", "two adverts", "two commits", "bad boxes", "wrong seed", "wrong shares",
        "two votes", "other kinds", "bad chunks", "wrong result", "early reveals", "certificates", "needs", "replays",
        "garbage", "statuses", "early decisions",
    ],
)  # fmt: skip
@pytest.mark.parametrize("liar", range(3))
def test_lie_of_one_peer_does_not_cost_the_others_the_round(name: str, liar: int) -> None:
    schedule = Schedule(Plan(seed=liar, n=7, lies=((liar, name),), in_order=True))
    if schedule.members[0].machine.leader == liar and name in REWRITES:
        pytest.skip("the leader of the first view lies: another test")
    schedule.play()
    honest = [m for i, m in enumerate(schedule.members) if i != liar]
    assert all(m.completed is not None for m in honest), [m.failed for m in honest]


def test_copied_key_costs_two_peers_at_most() -> None:
    schedule = Schedule(Plan(seed=1, n=7, lies=((1, "copied key"),), in_order=True))
    schedule.play()
    victim = 2
    assert all(m.completed is not None for i, m in enumerate(schedule.members) if i not in (1, victim))


def test_roster_in_which_a_key_is_used_twice_is_refused() -> None:
    network = observed()
    head = leader(network)
    liar, copied = (3, 4) if head < 3 else (1, 2)
    copy = network.members[copied].machine._state.secrets.mask_public
    network.start()
    machine = network.members[0].machine
    network.run_until(lambda: len(machine._advertising.have()) == N or machine.stage > Stage.ADVERTISE)
    advertising = machine._advertising
    known = advertising._adverts[liar]
    twin = msgspec.structs.replace(known.message, mask_public=copy)
    advertising._adverts[liar] = msgspec.structs.replace(known, message=twin, raw=signed(network, liar, twin))
    everyone = frozenset(range(N))
    assert len(advertising.propose()) == N - 1
    decided = Decide(Kind.ROSTER, 0, network.parameters.t0, bits_of(everyone), advertising.digest(everyone))
    with pytest.raises(MessageError, match="a key is used twice"):
        advertising.judge(decided, head)


def test_false_sum_by_a_peer_that_owns_nothing_does_not_end_the_round() -> None:
    network = observed()
    network.start()
    network.run_until(lambda: any(m.machine._state.t3 and m.machine._summing._sums for m in network.members))
    to = next(i for i, m in enumerate(network.members) if m.machine._summing._sums)
    machine = network.members[to].machine
    chunk, kept = next(iter(machine._summing._sums.items()))
    liar = next(i for i in range(N) if i not in machine._collecting.owners[chunk] and i != to)
    payload = bytes(len(kept.message.payload))
    signature = network.identities[liar].sign("p2psa/1/sum", machine._summing._payload(chunk, payload))
    inject(network, liar, to, Sum(chunk, signature, memoryview(payload)), bulk=True)
    assert machine.stage is not Stage.FAILED
    network.run()
    assert_completed(network, set(range(N)))


def test_result_with_a_false_signature_does_not_count() -> None:
    network = observed()
    lie(network, 1, 10, lambda _, m: [msgspec.structs.replace(m, signature=bytes(64))])
    network.start()
    network.run()
    for index, member in enumerate(network.members):
        if index != 1:
            assert member.completed is not None
            assert 1 not in member.completed.signatures


def test_result_with_a_false_signature_does_not_take_the_place_of_a_good_one() -> None:
    network = observed(3)  # of three peers every result counts
    lie(network, 1, 10, lambda _, m: [msgspec.structs.replace(m, signature=bytes(64)), m])
    network.start()
    network.run()
    assert_completed(network, {0, 1, 2})
    assert ["signature is not by" in fault.reason for fault in network.members[0].faults] == [True]


def test_sum_changed_on_its_way_is_refused() -> None:
    network = observed()
    network.start()
    network.run_until(lambda: any(m.machine._state.t3 for m in network.members))
    to = next(i for i, m in enumerate(network.members) if m.machine._state.t3)
    machine = network.members[to].machine
    network.run_until(lambda: any(d[1] == 33 and r == to for _, r, d, _ in network.wire))
    owner, _, raw, _ = next(item for item in network.wire if item[2][1] == 33 and item[1] == to)
    changed = raw[:-1] + bytes([raw[-1] ^ 1])
    liar = next(i for i in range(N) if i not in (owner, to))
    machine.receive(liar, changed, bulk=True, now=network.now)
    machine._summing.take_early()
    network._do(to)
    assert "p2psa/1/sum: signature is not by" in network.members[to].faults[-1].reason
    network.run()
    assert_completed(network, set(range(N)))


def test_two_owners_with_different_sums_end_the_round_and_are_named() -> None:
    schedule = Schedule(Plan(seed=3, n=5, replicas=2, lies=((2, "wrong sum"),), in_order=True))
    schedule.play()
    reasons = [m.failed.reason for i, m in enumerate(schedule.members) if i != 2]
    assert any("signed different sums of chunk" in reason and "2" in reason for reason in reasons)


def test_sum_out_of_range_is_refused_by_everyone() -> None:
    network = observed()
    network.observer.exact = False
    network.members[2].machine._collecting.start_masking = lambda: None
    network.start()
    reach(network, Stage.COLLECT)
    machine = network.members[2].machine
    del machine._collecting.__dict__["start_masking"]
    object.__setattr__(machine._state.parameters, "value_bits", 18)  # this peer clips at four times the bound
    network.members[2].update = np.full_like(network.members[2].update, 1.0)
    network.give_update(2)
    object.__setattr__(machine._state.parameters, "value_bits", 16)
    network.run()
    assert not any(m.completed for m in network.members)
    assert any("out of range" in m.failed.reason for m in network.members)


# Memory and amplification.


def test_repeated_status_earns_one_answer() -> None:
    network = observed(N)
    network.start()
    reach(network, Stage.UNMASK)
    victim = 1
    view = next(v for v in range(1, N) if network.members[victim].machine._views.leader_of(v) == victim)
    first = len(network.sent)
    inject(network, 3, victim, Status(view, ()))
    before = len(network.sent)
    assert before > first + 1  # decisions, and the certificate
    for _ in range(50):
        inject(network, 3, victim, Status(view, ()))
    assert len(network.sent) == before


@pytest.mark.parametrize("at", [4, -1])  # of another round; with another signature
def test_refused_status_does_not_take_the_place_of_a_good_one(at: int) -> None:
    network, victim, _ = before_certificate()
    view = next(v for v in range(1, N) if network.members[victim].machine._views.leader_of(v) == victim)
    decided = bytearray(next(data for _, _, data, _ in network.sent if data[1] == 2))
    decided[at] ^= 1
    assert len(inject(network, 3, victim, Status(view, (bytes(decided),)))) == 1
    before = len(network.sent)
    assert inject(network, 3, victim, Status(view, ())) == []
    assert len(network.sent) > before


def test_decision_without_a_root_that_brings_one_is_refused() -> None:
    network, victim, t2 = before_certificate()
    decided = Decide(Kind.MASKED, 0, t2, 0b11111, bytes(31) + b"\1")
    assert "has root 0" in inject(network, leader(network), victim, decided)[0]


def test_chunk_that_the_mask_set_does_not_have_is_refused() -> None:
    network, victim, _ = before_certificate()
    chunks = network.members[victim].machine._state.plan.count
    assert chunks < N
    for message in (Have(0, 0, ((chunks, 1),)), Need(Kind.SUMS, 1 << chunks), Assign(0, chunks, 0)):
        assert "chunk" in inject(network, leader(network), victim, message)[0]


def test_questions_are_answered_a_bounded_number_of_times() -> None:
    network, victim, _ = before_certificate()
    for _ in range(50):
        inject(network, 3, victim, Need(Kind.ADVERTS, 0b11111))
    assert sum(data[1] == 12 for s, to, data, _ in network.sent if (s, to) == (victim, 3)) <= 4 * N


def test_chunks_that_cannot_be_checked_are_kept_in_small_number() -> None:
    network, victim, _ = before_certificate(7)
    machine = network.members[victim].machine
    not_mine = [c for c in machine._collecting.owners if victim not in machine._collecting.owners[c]]
    reasons = [inject(network, 3, victim, Chunk(c, memoryview(bytes(20))), bulk=True) for c in not_mine]
    assert sum(bool(r) for r in reasons) == len(not_mine) - 4
    assert "more than 4 chunks" in reasons[-1][0]


def test_sums_before_the_certificate_are_kept_in_small_number() -> None:
    network, victim, _ = before_certificate(7)
    reasons = [inject(network, 3, victim, Sum(c, bytes(64), memoryview(bytes(20))), bulk=True) for c in range(7)]
    assert sum(bool(r) for r in reasons) == 3


def test_link_that_flaps_does_not_multiply_the_traffic_without_end() -> None:
    network, victim, _ = before_certificate()
    machine = network.members[victim].machine
    before = len(network.sent)
    each = len(machine._state.post.links[3].outbox)
    for _ in range(100):
        machine.link_down(3, network.now)
        machine.link_up(3, bytes([3]) * 32, network.now)
        network._do(victim)
    assert len(network.sent) - before <= 17 * (each + 2 * N)


def test_message_longer_than_its_bound_is_refused_before_it_is_read() -> None:
    network = observed()
    network.start()
    for bulk in (False, True):
        network.members[0].machine.receive(1, bytes(70_000), bulk=bulk, now=0.0)
    network._do(0)
    assert all("at most" in fault.reason for fault in network.members[0].faults)
    assert len(network.members[0].faults) == 2
