"""Who counts, under which model, and which secret of a peer is told.

Each fails when its guard is taken out (see mutations.py); docs/security/p2psa-1.md says what each is for.
"""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from protocol.errors import TermsError
from protocol.round.machine import Stage
from protocol.round.messages import Advert, Decide, Forward, Have, Kind, Reveal, Vote
from protocol.secagg.keys import agree, mask_key, private_key, self_key
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
    reach,
)
from tests.round.liars import signed
from tests.round.network import Network

# The signaling server in the middle.


def test_link_with_another_certificate_than_advertised_is_not_used() -> None:
    network = observed()
    victim, other = network.members[0].machine, 1
    network.start()
    network.run_until(lambda: victim.stage >= Stage.COLLECT)
    victim.link_down(other, network.now)
    victim.link_up(other, b"\xee" * 32, network.now)
    network._do(0)
    assert "certificate" in network.members[0].faults[-1].reason
    sent = len(network.sent)
    assert "certificate" in inject(network, other, 0, Have(0, 1, ()))[0]  # nothing is taken from that link
    victim.tick(network.now)
    assert all(to != other for sender, to, *_ in network.sent[sent:] if sender == 0)


def test_advert_with_another_certificate_than_its_link_is_refused() -> None:
    network = observed()
    lie(network, 1, 1, lambda _, m: [msgspec.structs.replace(m, fingerprint=b"\xee" * 32)])
    network.start()
    network.run()
    assert_completed(network, {0, 2, 3, 4}, among={0, 2, 3, 4})
    assert any("certificate" in f.reason for f in network.members[0].faults)


def test_second_advert_of_a_peer_is_refused() -> None:
    network = observed()
    network.start()
    machine = network.members[0].machine
    network.run_until(lambda: 1 in machine._advertising.have())
    first = machine._advertising.advert(1)
    second = msgspec.structs.replace(first, seed_commitment=bytes(32))
    for by, message in [(1, second), (2, Forward(signed(network, 1, second)))]:
        assert "advertised twice" in inject(network, by, 0, message)[0]
    assert machine._advertising.advert(1) == first


@pytest.mark.parametrize("victims", [{0}, {0, 2, 3}])
def test_peer_that_shows_some_another_certificate_costs_nobody_else_the_round(victims: set[int]) -> None:
    """Its advert comes to those from others, as genuine as any: they go on, without its link."""
    network = observed(7)
    head = leader(network)
    liar, victims = (head + 1) % 7, {(head + 2 + i) % 7 for i in victims}
    network.tamper = lambda sender, to, data, _bulk: (
        [] if (sender == liar and to in victims) or (sender in victims and to == liar) else [data]
    )
    network.start()
    for victim in victims:
        network.members[victim].machine.link_up(liar, b"\xee" * 32, network.now)
    network.run()
    honest = [m for i, m in enumerate(network.members) if i != liar]
    assert [m.failed for m in honest] == [None] * 6
    assert not any(network.members[i].machine._state.is_live(liar) for i in victims)
    network.observer.end()


def test_advert_that_comes_over_a_link_is_held_against_it_and_a_forwarded_one_closes_it() -> None:
    network = observed()
    network.start()
    machine = network.members[0].machine
    genuine = network.members[1].machine._state.secrets
    advert = Advert(network.parameters.t0, genuine.mask_public, genuine.enc_public, bytes(32), b"\xee" * 32)
    assert "certificate" in inject(network, 1, 0, advert)[0]
    assert machine._state.is_live(1)
    assert inject(network, 2, 0, Forward(signed(network, 1, advert))) == []
    assert not machine._state.is_live(1)
    assert "certificate" in inject(network, 1, 0, Have(0, 1, ()))[0]  # nothing is taken from that link


def test_link_counts_again_once_it_shows_the_certificate_that_its_peer_advertised() -> None:
    network = observed()
    machine = network.members[0].machine
    network.start()
    network.run_until(lambda: 1 in machine._advertising.have())
    known = machine._advertising.advert(1)
    machine.link_up(1, b"\xee" * 32, network.now)
    network._do(0)
    assert "certificate" in inject(network, 1, 0, known)[0]
    machine.link_up(1, known.fingerprint, network.now)
    assert inject(network, 1, 0, known) == []
    machine.link_up(1, b"\xee" * 32, network.now)
    network._do(0)
    machine._requests.need(2, Kind.ADVERTS, 0b10)  # the answer is the advert that others have, and fits the link
    other = msgspec.structs.replace(known, fingerprint=b"\xee" * 32)
    assert inject(network, 2, 0, Forward(signed(network, 1, other))) == []
    assert inject(network, 1, 0, other) == []


# n-1 fake peers, and survivor sets that are too small.


def test_sum_over_fewer_than_the_terms_allow_is_never_revealed() -> None:
    network = observed(6, min_survivors=6)
    network.start(without_update=frozenset({2}))
    network.run_until(lambda: all(m.machine.stage >= Stage.COLLECT for m in network.members))
    network.kill(2)
    network.run()
    assert all(m.failed for m in network.alive())
    assert not any(data[1] == 9 for _, _, data, _ in network.sent)


@pytest.mark.parametrize("kind", [Kind.ROSTER, Kind.MASKED, Kind.SURVIVORS])
def test_leader_cannot_shrink_a_set_below_the_quorum(kind: int) -> None:
    network = observed(7, min_survivors=6)
    head = leader(network)

    def shrink(_: int, m: Decide) -> list[Decide]:
        few = sorted(i for i in range(7) if m.members >> i & 1)[:3]
        return [msgspec.structs.replace(m, members=bits_of(set(few)))] if m.kind == kind else [m]

    lie(network, head, 2, shrink)
    network.observer.liars = frozenset({head})
    network.start()
    network.run()
    others = [m for i, m in enumerate(network.members) if i != head]
    assert any("expected at least 6" in f.reason for m in others for f in m.faults)
    assert all(len(m.machine.survivors) in (0, 6, 7) for m in others)


def test_round_that_asks_for_more_survivors_than_peers_is_refused() -> None:
    parameters = Network(4).parameters
    with pytest.raises(TermsError, match="5 peers must survive, the cohort has 4"):
        dataclasses.replace(parameters, min_survivors=5)


# Different models to different peers.


def test_peer_that_was_given_another_model_cannot_join() -> None:
    network = observed()
    other = dataclasses.replace(network.parameters, model_digest="22" * 32)
    lie(network, 1, 1, lambda _, m: [msgspec.structs.replace(m, t0=other.t0)])
    network.start()
    network.run()
    assert_completed(network, {0, 2, 3, 4}, among={0, 2, 3, 4})
    assert any("another round, plan, model or terms" in f.reason for f in network.members[0].faults)


def test_signature_made_for_another_model_is_refused() -> None:
    network, other = observed(), Network(N)
    other.parameters = dataclasses.replace(other.parameters, model_digest="22" * 32)
    codec = type(network.members[0].machine._state.post.codec)(other.parameters)
    network.start()
    vote = Vote(bytes(32), 0b11111, bytes(32))
    raw = codec.encode(1, vote, network.identities[1])
    network.members[0].machine.receive(1, raw, bulk=False, now=0.0)
    network._do(0)
    assert "signature is not by" in network.members[0].faults[-1].reason


# Asking for both seeds of a peer.


def test_two_survivor_sets_never_get_two_votes_of_a_peer() -> None:
    network = observed(4, liars=frozenset({0}))
    head = leader(network)
    network.observer.liars = frozenset({head})
    victim = (head + 1) % 4
    network.start()
    network.run_until(lambda: network.members[victim].machine._views.vote is not None)
    network.wire.clear()
    machine = network.members[victim].machine
    survivors = frozenset(range(4)) - {(victim + 1) % 4}
    root = machine._collecting.root(survivors)
    for view in range(4):
        if machine._views.leader_of(view) == head:
            inject(network, head, victim, Decide(Kind.SURVIVORS, view, machine._state.t2, bits_of(survivors), root))
    for _ in range(4):  # the same from every later leader, once its view has come
        network.step_time()
        by = machine.leader
        if by != victim and machine.stage is Stage.COLLECT:
            decided = Decide(Kind.SURVIVORS, machine.view, machine._state.t2, bits_of(survivors), root)
            inject(network, by, victim, decided)
    assert machine.view > 0
    assert len(network.observer.votes[victim]) == 1


def test_nobody_votes_for_a_root_that_its_own_commits_do_not_give() -> None:
    network = observed()
    head = leader(network)
    network.observer.liars = frozenset({head})
    lie(
        network,
        head,
        2,
        lambda _, m: [msgspec.structs.replace(m, root=b"\5" * 32)] if m.kind == Kind.SURVIVORS else [m],
    )
    network.start()
    network.run()
    for voter, votes in network.observer.votes.items():
        assert voter != head
        assert all(b"\5" * 32 not in vote for vote in votes)


def test_certificate_of_fewer_than_t_votes_is_refused() -> None:
    network, victim, t2 = before_certificate()
    thin = certificate(network, {0, 2, 3}, {0, 1, 2, 3}, bytes(32), t2)
    assert "3 votes, expected 4" in inject(network, 3, victim, thin)[0]
    assert not network.members[victim].machine.survivors


def test_certificate_with_one_forged_vote_is_refused() -> None:
    network, victim, t2 = before_certificate()
    good = certificate(network, {0, 2, 3, 4}, {0, 1, 2, 3}, bytes(32), t2)
    forged = msgspec.structs.replace(good, signatures=(*good.signatures[:3], good.signatures[0]))
    assert "signature is not by" in inject(network, 3, victim, forged)[0]
    assert not network.members[victim].machine.survivors


def test_certificate_below_u_min_is_refused_even_with_all_votes() -> None:
    network, victim, t2 = before_certificate(7)
    tiny = certificate(network, set(range(7)), {0, 1, 2}, bytes(32), t2)
    assert "3 survivors, expected at least 5" in inject(network, 3, victim, tiny)[0]
    assert not network.members[victim].machine.survivors


def test_certificate_for_another_mask_set_is_refused() -> None:
    network, victim, _ = before_certificate()
    other = certificate(network, {0, 2, 3, 4}, {0, 1, 2, 3}, bytes(32), b"\1" * 32)
    assert "another mask set" in inject(network, 3, victim, other)[0]


def test_second_certificate_changes_nothing() -> None:
    network, victim, t2 = before_certificate()
    inject(network, 3, victim, certificate(network, {0, 2, 3, 4}, {0, 1, 2, 3}, bytes(32), t2))
    inject(network, 3, victim, certificate(network, {0, 2, 3, 4}, {1, 2, 3, 4}, bytes(32), t2))
    assert network.members[victim].machine.survivors == {0, 1, 2, 3}
    assert network.members[victim].machine._voting.certificate.survivors == bits_of({0, 1, 2, 3})
    told = network.observer.recorded[victim]
    assert (4, Kind.MASK_KEY) in told
    assert (4, Kind.SEED) not in told


def test_share_of_the_secret_that_stays_hidden_is_never_told_on_request() -> None:
    network, victim, t2 = before_certificate()
    inject(network, 3, victim, certificate(network, {0, 2, 3, 4}, {0, 1, 2, 3}, bytes(32), t2))
    for kind in (Kind.SEED, Kind.MASK_KEY):
        asked = Reveal(None, tuple((peer, kind, bytes(32)) for peer in range(N)))
        assert "does not open" in inject(network, 3, victim, asked)[0]
        for peer in range(N):
            inject(network, 3, victim, Reveal(None, ((peer, kind, bytes(32)),)))
    told = network.observer.recorded[victim]
    assert {(peer, kind) for peer, kind in told if peer == 4} == {(4, Kind.MASK_KEY)}
    assert not any(kind == Kind.MASK_KEY for peer, kind in told if peer != 4)


def test_nothing_is_revealed_without_a_certificate() -> None:
    network, victim, _ = before_certificate()
    for liar in (0, 2, 3, 4):
        inject(network, liar, victim, Reveal(bytes(32), tuple((i, 1 + i % 2, bytes(32)) for i in range(N))))
    network.members[victim].machine.tick(network.now + 60)
    network._do(victim)
    assert not network.observer.recorded[victim]


def test_what_is_revealed_is_recorded_first() -> None:
    network = observed()
    network.start()
    network.run()  # the observer checks the order at every REVEAL, COMMIT and VOTE
    assert all(network.observer.recorded[i] for i in range(N))
    assert_completed(network, set(range(N)))


def test_coalition_below_its_bound_sees_masks_it_cannot_take_off() -> None:
    """What two liars, the leader and everything on the wire give stays under masks that are unknown to them."""
    network = observed()
    network.start()
    network.run()
    state = network.members[0].machine._state
    liars = {3, 4}
    unknown = [
        mask_key(state.t1, agree(private_key(m.randomness[:32]), m2._state.secrets.mask_public, 0), i, j)
        for i, m in enumerate(network.members)
        for j, m2 in enumerate(x.machine for x in network.members)
        if i < j and not {i, j} & liars
    ]
    known = {self_key(state.t1, m.randomness[64:96], i) for i, m in enumerate(network.members)}
    assert not known & set(unknown)
    assert len(set(unknown)) == 3
    for member in network.members:
        for _, _, data, _ in network.sent:
            assert member.randomness[:32] not in bytes(data)


# Differences across rounds and sets.


@pytest.mark.parametrize("while_masking", [False, True])
def test_update_is_masked_once(*, while_masking: bool) -> None:
    network = observed()
    network.start(without_update=frozenset({1}))
    reach(network, Stage.COLLECT)
    jobs = []
    network.work = lambda index, action: jobs.append((index, action)) if index == 1 else network.finish(index, action)
    network.give_update(1)
    if not while_masking:
        network.finish(*jobs.pop())
        network._do(1)
    network.members[1].update = network.members[1].update * 0.5
    network.give_update(1)
    for job in jobs:
        network.finish(*job)
        network._do(1)
    assert len(network.observer.commits[1]) == 1
    assert sum(data[1] == 5 for s, to, data, _ in network.sent if (s, to) == (1, 0)) == 1


def test_update_that_comes_after_the_vote_without_it_is_thrown_away() -> None:
    network, victim, t2 = before_certificate()
    inject(network, 3, victim, certificate(network, {0, 2, 3, 4}, {1, 2, 3, 4}, bytes(32), t2))
    late = network.members[0]
    late.machine.receive(
        3, signed(network, 3, certificate(network, {1, 2, 3, 4}, {1, 2, 3, 4}, bytes(32), t2)), bulk=False, now=0.0
    )
    network._do(0)
    network.give_update(0)
    assert not network.observer.commits[0]


def test_update_still_being_masked_when_others_are_certified_is_thrown_away() -> None:
    network, _, t2 = before_certificate()
    jobs = []
    network.work = lambda index, action: jobs.append((index, action))
    network.give_update(0)
    inject(network, 3, 0, certificate(network, {1, 2, 3, 4}, {1, 2, 3, 4}, bytes(32), t2))
    assert len(jobs) == 1
    network.finish(*jobs[0])
    network._do(0)
    assert not network.observer.commits[0]
    assert not any(data[1] in (5, 32) for sender, _, data, _ in network.sent if sender == 0)


def test_resent_chunks_are_the_same_bytes() -> None:
    network = observed(7)
    network.start(without_update=frozenset({3}))
    reach(network, Stage.COLLECT)
    network.run_until(lambda: not network.wire)
    network.kill(0)  # an owner goes: its chunk is sent again to a backup
    network.give_update(3)
    network.run()
    chunks: dict[tuple[int, int], set[bytes]] = {}
    for sender, _, data, bulk in network.sent:
        if bulk and data[1] == 32:
            chunks.setdefault((sender, int.from_bytes(data[12:14], "little")), set()).add(bytes(data))
    assert all(len(versions) == 1 for versions in chunks.values())
    assert_completed(network, {1, 2, 3, 4, 5, 6})
