"""Many cohorts per round (spec 08): real machines on several levels, dropouts, and what a delegate gets to see."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.cohorts import FinishedGroup, arrange, check_own_group, compute_group_round_id, name_delegates
from protocol.errors import RoundError, TermsError
from protocol.identity import Identity
from protocol.round.combining import combining_parameters, group_sum, group_sum_digest, most_peers
from protocol.round.jobs import GroupSum, LocalUpdate
from protocol.round.machine import Stage
from protocol.secagg.apply import Aggregate, apply_aggregate
from protocol.secagg.parameters import RoundParameters
from protocol.signaling import compute_round_id
from spec.reference import transcript
from tests.round.levels import RUN, CohortNetwork, Levels, as_group, undisturbed
from tests.round.network import ended, stream
from tests.secagg.ring import packed, read_whole


def assert_exact(levels: Levels, top: CohortNetwork) -> None:
    """The last level's sum is the plain integer sum over all certified peers, and all delegates hold one model."""
    alive = [member for member in top.alive() if member.completed is not None]
    assert alive
    sums = {member.aggregate.sums.tobytes() for member in alive}
    models = {member.model.tobytes() for member in alive}
    assert len(sums) == len(models) == 1
    total, revealed = levels.expected(len(levels.networks), 0), alive[0].aggregate
    assert np.array_equal(total, revealed.sums)
    plain = replace(revealed, sums=total.astype(np.int32))
    model = apply_aggregate(levels.model, plain, clip=1.0, largest_value=top.parameters.multiplicity * 32767)
    assert models == {model.tobytes()}


@pytest.mark.parametrize(
    ("population", "size", "fan_in", "shape"),
    [(10, 5, 64, [2, 1]), (20, 5, 64, [4, 1]), (60, 5, 4, [12, 3, 1]), (75, 3, 4, [25, 7, 2, 1])],
)
def test_total_is_the_plain_sum_over_all_peers(population: int, size: int, fan_in: int, shape: list[int]) -> None:
    levels = Levels(population, size, fan_in)
    top = levels.run()
    assert [len(networks) for networks in levels.networks] == shape
    assert_exact(levels, top)
    everybody = sum((n.in_the_ring(i) for n in levels.networks[0] for i in range(len(n.members))), start=0)
    assert np.array_equal(everybody, top.members[0].aggregate.sums), "nobody dropped out, so everybody counts once"


@pytest.mark.parametrize("stage", [Stage.SHARE, Stage.COLLECT, Stage.UNMASK, Stage.AGREE])
def test_peers_lost_in_every_group_leave_an_exact_sum(stage: Stage) -> None:
    def lose_one(level: int, group: int, network: CohortNetwork) -> None:
        network.start()
        if level == 1:
            victim = group % len(network.members)
            network.run_until(lambda: network.members[victim].machine.stage >= stage)
            network.kill(victim)
        network.run()

    levels = Levels(28, 7, 64)
    top = levels.run(lose_one)
    assert levels.finished[0] == [0, 1, 2, 3]
    assert_exact(levels, top)


def test_group_that_fails_is_left_out_whole() -> None:
    def starve(level: int, group: int, network: CohortNetwork) -> None:
        if (level, group) == (1, 2):
            network.start(without_update=frozenset(range(5)))
            for victim in (0, 1, 2):
                network.kill(victim)
            network.run()
            assert all(member.failed is not None for member in network.alive())
        else:
            undisturbed(level, group, network)

    levels = Levels(25, 5, 64)
    top = levels.run(starve)
    assert levels.finished[0] == [0, 1, 3, 4]
    assert_exact(levels, top)


@pytest.mark.parametrize("population", [25, 30])
def test_group_whose_only_delegate_vanishes_is_not_in_the_sum(population: int) -> None:
    def lose_delegate(level: int, group: int, network: CohortNetwork) -> None:
        if level == 1:
            undisturbed(level, group, network)
            return
        network.start(without_update=frozenset({1}))
        network.run_until(lambda: all(m.machine.stage >= Stage.COLLECT for m in network.members))
        network.kill(1)
        network.run()

    levels = Levels(population, 5, 64)
    top = levels.run(lose_delegate)
    assert 1 not in top.counted()
    assert len(top.counted()) == population // 5 - 1
    assert_exact(levels, top)


def first_and_second(network: CohortNetwork, group: int) -> tuple[int, int]:
    first, second = (i for i, source in enumerate(network.parameters.sources) if source == group)
    return first, second


@pytest.mark.parametrize("population", [10, 15])
@pytest.mark.parametrize("which", [0, 1])
def test_group_with_two_delegates_counts_once_when_one_never_comes(population: int, which: int) -> None:
    def lose_early(level: int, group: int, network: CohortNetwork) -> None:
        if level == 1:
            undisturbed(level, group, network)
            return
        network.kill(first_and_second(network, 0)[which])
        for member in network.alive():
            for other in network.alive():
                if other is not member:
                    there = other.machine.own_index
                    member.machine.link_up(there, bytes([there]) * 32, network.now)
        for index, member in enumerate(network.members):
            if not member.dead:
                member.machine.start(network.now)
                network._do(index)
                network.give_update(index)
        network.run()

    levels = Levels(population, 5, 64)
    top = levels.run(lose_early)
    assert {top.parameters.sources[index] for index in top.counted()} == set(range(population // 5))
    assert len(top.counted()) == population // 5
    assert_exact(levels, top)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("stage", [Stage.SHARE, Stage.COLLECT, Stage.UNMASK, Stage.SUM])
def test_group_with_two_delegates_never_counts_twice(which: int, stage: Stage) -> None:
    def lose_late(level: int, group: int, network: CohortNetwork) -> None:
        network.start()
        if level == 2:
            victim = first_and_second(network, 1)[which]
            network.run_until(lambda: network.members[victim].machine.stage >= stage)
            network.kill(victim)
        network.run()

    levels = Levels(10, 5, 64)
    top = levels.run(lose_late)
    groups = [top.parameters.sources[index] for index in top.counted()]
    assert len(groups) == len(set(groups))
    assert_exact(levels, top)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("population", [12, 18, 25])
def test_random_order_and_deaths_on_every_level_give_the_exact_sum_or_none(population: int, seed: int) -> None:
    """Messages in random order; in most cohorts of every level somebody dies at a random event."""
    draw = random.Random(f"{population} {seed}")

    def disturb(_level: int, _group: int, network: CohortNetwork) -> None:
        network.start()
        events = draw.randrange(40 * len(network.members) ** 2)
        countdown = itertools.count(events, -1)
        network.run_until(lambda: next(countdown) <= 0 or all(ended(m) for m in network.members), draw.randrange)
        if draw.random() < 0.8:
            network.kill(draw.randrange(len(network.members)))
        network.run(draw.randrange)
        assert all(ended(member) for member in network.alive())

    levels = Levels(population, 6, 4)
    try:
        top = levels.run(disturb)
    except TermsError as error:  # too few groups are left to combine: the attempt ends
        if "cannot be combined" not in str(error) and "signed its sum" not in str(error):
            raise
        return
    if any(member.completed for member in top.alive()):
        groups = [top.parameters.sources[index] for index in top.counted()]
        assert len(groups) == len(set(groups))
        assert_exact(levels, top)
    else:
        assert all(member.failed is not None for member in top.alive())


def received_by(network: CohortNetwork, index: int) -> bytes:
    return b"".join(data for _, to, data, _ in network.sent if to == index)


def test_no_delegate_receives_an_update_or_the_sum_of_another_group() -> None:
    levels = Levels(80, 5, 4, length=64)
    levels.run()
    for level, networks in enumerate(levels.networks, 1):
        for network in networks:
            for index in range(len(network.members)):
                heard = received_by(network, index)
                for other in range(len(network.members)):
                    if other == index or not network.parameters.contributes(
                        other, frozenset(range(len(network.members)))
                    ):
                        continue
                    for probe in probes(network, other):
                        assert probe not in heard, f"level {level}: peer {index} heard what peer {other} put in"


def probes(network: CohortNetwork, index: int) -> list[bytes]:
    """Eight coordinates of a contribution at every aligned place, as plain integers and packed for the ring."""
    values = network.in_the_ring(index)
    found = []
    for start in range(0, 64, 8):
        part = values[start : start + 8].astype(np.int32)
        ring = part.view(np.uint32).copy()
        found += [part.tobytes(), packed(ring, network.parameters.ring_bits)]
    return found


def test_probe_finds_what_is_really_sent() -> None:
    levels = Levels(5, 5, 64, length=64)
    top = levels.run()
    sums = top.members[0].aggregate.sums[:8].astype(np.int32).view(np.uint32).copy()
    assert any(packed(sums, 24) in received_by(top, index) for index in range(5)), "the chunk sums do go around"


def combining(*, groups: int = 4) -> CohortNetwork:
    """A level-2 cohort before its start."""
    held: list[CohortNetwork] = []

    def keep(level: int, group: int, network: CohortNetwork) -> None:
        if level == 2:
            held.append(network)
        undisturbed(level, group, network)

    levels = Levels(5 * groups, 5, 64)
    levels.run(keep)
    top = held[0]
    contributions = dict(zip(top.parameters.cohort, top.contributions, strict=True))
    return CohortNetwork(top.parameters, levels.identities, contributions, levels.model, last=True)


def test_delegates_told_different_groups_cannot_join() -> None:
    network = combining(groups=2)
    liar = replace(network.parameters, sources=tuple(1 - source for source in network.parameters.sources))
    assert liar.t0 != network.parameters.t0
    assert replace(network.parameters, multiplicity=6).t0 != network.parameters.t0


def test_update_is_refused_where_groups_are_combined() -> None:
    network = combining()
    network.contributions[0] = LocalUpdate(network.model, 1.0, (0.5,))
    network.start()
    network.run()
    assert "a LocalUpdate was handed in, this cohort sums the sum of a group" in network.members[0].failed.reason


def test_group_sum_is_refused_among_updates() -> None:
    levels = Levels(5, 5, 64)
    failures = []

    def cheat(_level: int, _group: int, network: CohortNetwork) -> None:
        network.contributions[3] = GroupSum(np.zeros(network.parameters.vector_length, np.int32))
        network.start()
        network.run()
        failures.append(network.members[3].failed)

    levels.run(cheat)
    assert "a GroupSum was handed in, this cohort sums an update" in failures[0].reason


def test_group_sum_beyond_its_peers_is_refused() -> None:
    network = combining()
    bound = network.parameters.largest_contribution
    too_large = np.full(network.parameters.vector_length, bound + 1, np.int32)
    with pytest.raises(RoundError, match="out of range: beyond 5 peers"):
        GroupSum(too_large).ring_elements(network.parameters, counts=True)
    fits = GroupSum(too_large - 1).ring_elements(network.parameters, counts=True)
    assert read_whole(fits, 8).view(np.int32)[0] == bound


def test_group_sum_shows_no_values() -> None:
    assert repr(GroupSum(np.array([123456], np.int32))) == "GroupSum(length=1)"


def test_lost_weight_is_made_good_at_the_next_level() -> None:
    network = combining(groups=3)
    parameters = network.parameters
    length = parameters.vector_length - 2
    sums = np.zeros(parameters.vector_length, np.int32)
    lost = ((length // 8 * 8, parameters.vector_length),)
    aggregate = Aggregate(sums, frozenset(range(6)), lost, contributions=3)
    total = group_sum(aggregate, parameters, model_length=length)
    assert total.sums[length] == 3 * 5 * parameters.largest_value
    assert total.sums[length] <= most_peers(parameters) * parameters.largest_value
    assert sums[length] == 0


def test_plain_rounds_have_the_round_digest_they_had() -> None:
    parameters = Levels(5, 5, 64).plain(tuple(sorted(Levels(5, 5, 64).identities)), 0)
    assert parameters._groups() == b""
    assert not parameters.combines
    assert parameters.largest_contribution == parameters.largest_value


def test_ids_of_groups_differ_from_each_other_and_from_plain_rounds() -> None:
    places = [(r, a, level, g) for r in (1, 2) for a in (1, 2) for level in (1, 2) for g in (0, 1, 256)]
    ids = {compute_group_round_id(RUN, *place) for place in places}
    plain = {compute_round_id(RUN, r, a) for r in (1, 2) for a in (1, 2)}
    assert len(ids | plain) == len(places) + len(plain)
    with pytest.raises(TermsError, match="level 0"):
        compute_group_round_id(RUN, 1, 1, 0, 0)
    with pytest.raises(TermsError, match="group 65536"):
        compute_group_round_id(RUN, 1, 1, 1, 1 << 16)


def test_overflowing_population_is_refused() -> None:
    network = combining()
    delegation = name_delegates([replace(as_plain_group(i), peers=20_000) for i in range(4)])[0]
    with pytest.raises(TermsError, match="4 values of 16 bits, each over up to 20000 peers, overflow 32 ring bits"):
        combining_parameters(network.parameters, delegation, round_id="22" * 32)


def as_plain_group(number: int, signers: int = 4) -> FinishedGroup:
    return FinishedGroup(
        group=number,
        round_id=compute_group_round_id(RUN, 1, 1, 1, number),
        sum_digest=group_sum_digest(GroupSum(np.array([number], np.int32))),
        signers=tuple(Identity(stream(f"group {number} peer {i}", 32)).peer_id for i in range(signers)),
        peers=signers,
    )


@settings(max_examples=60)
@given(count=st.integers(3, 200), size=st.integers(3, 64), smallest=st.integers(3, 64), most=st.integers(1, 40))
def test_cohorts_are_even_sorted_and_hold_nobody_twice(count: int, size: int, smallest: int, most: int) -> None:
    names = [f"{i:064x}" for i in range(count)]
    if smallest > size or count < smallest:
        with pytest.raises(TermsError):
            arrange(names, size=size, smallest=smallest, most=most)
        return
    cohorts = arrange(names, size=size, smallest=smallest, most=most)
    sizes = [len(cohort) for cohort in cohorts]
    assert 1 <= len(cohorts) <= most
    assert smallest <= min(sizes)
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    placed = [peer for cohort in cohorts for peer in cohort]
    assert placed == names[: len(placed)]
    if len(cohorts) < most and len(placed) < count:
        assert len(placed) == len(cohorts) * size, "who is left out found every cohort full"


@settings(max_examples=40)
@given(count=st.integers(2, 150), fan_in=st.integers(4, 64))
def test_every_group_is_spoken_for_in_one_cohort(count: int, fan_in: int) -> None:
    delegations = name_delegates([as_plain_group(i) for i in range(count)], fan_in=fan_in)
    spoken = [set(delegation.sources) for delegation in delegations]
    assert set().union(*spoken) == set(range(count))
    assert sum(len(groups) for groups in spoken) == count
    for delegation, groups in zip(delegations, spoken, strict=True):
        assert 4 <= len(delegation.cohort) <= 64, "a cohort of delegates can lose one"
        assert len(delegation.cohort) == len(groups) * (2 if len(groups) <= 3 else 1)
        assert list(delegation.cohort) == sorted(set(delegation.cohort))


@pytest.mark.parametrize(
    ("groups", "fan_in", "words"),
    [
        ([0], 64, "1 groups cannot be combined"),
        ([0, 1], 3, "3 at a time"),
        ([0, 1], 65, "65 at a time"),
        ([0, 0], 64, "already speaks for another group"),
    ],
)
def test_delegates_that_cannot_be_named_are_an_error(groups: list[int], fan_in: int, words: str) -> None:
    with pytest.raises(TermsError, match=words):
        name_delegates([as_plain_group(number) for number in groups], fan_in=fan_in)
    with pytest.raises(TermsError, match="1 peers that signed its sum, expected 2"):
        name_delegates([as_plain_group(0, signers=1), as_plain_group(1)])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sources": (0, 1, 2)}, "groups are named for 3 peers, the cohort has 4"),
        ({"sources": (1, 1, 1, 1)}, "2 or more groups"),
        ({"sources": (0, 1, 2, 65536)}, "groups below 65536"),
        ({"sources": ()}, "but no groups are named"),
        ({"multiplicity": 2}, "sums over 3 peers or more, got 2"),
    ],
)
def test_contradicting_groups_are_an_error(changes: dict[str, object], words: str) -> None:
    network = combining()
    with pytest.raises(TermsError, match=words):
        replace(network.parameters, **changes)


def test_delegate_is_drawn_from_the_result() -> None:
    group = as_plain_group(0, signers=12)
    others = [as_plain_group(i) for i in range(1, 4)]
    drawn = set()
    for result in range(24):
        digest = group_sum_digest(GroupSum(np.array([result], np.int32)))
        delegation = name_delegates([replace(group, sum_digest=digest), *others])[0]
        drawn |= set(delegation.cohort) & set(group.signers)
    assert len(drawn) > 6, "over many results, many members have had their turn"


def test_finished_group_counts_everybody_below() -> None:
    levels = Levels(60, 5, 4)
    levels.run()
    assert as_group(levels.networks[0][0], 0).peers == 5
    assert as_group(levels.networks[1][0], 0).peers == 20
    assert as_group(levels.networks[2][0], 0).peers == 60


def test_outsider_cannot_speak_for_a_group() -> None:
    groups = [as_plain_group(0), as_plain_group(1)]
    delegation = name_delegates(groups)[0]
    first = next(p for p, source in zip(delegation.cohort, delegation.sources, strict=True) if source == 0)
    check_own_group(delegation, first, groups[0].signers)
    with pytest.raises(TermsError, match="speaks for group 0 but was not in it"):
        check_own_group(delegation, first, [first])
    with pytest.raises(TermsError, match="of group 0 speaks for group 1"):
        check_own_group(delegation, first, groups[0].signers + groups[1].signers)
    with pytest.raises(TermsError, match="not among the delegates"):
        check_own_group(delegation, "00" * 32, groups[0].signers)


def reference_parameters(p: RoundParameters) -> transcript.Parameters:
    return transcript.Parameters(
        min_survivors=p.min_survivors,
        ring_bits=p.ring_bits,
        value_bits=p.value_bits,
        replicas=p.replicas,
        elements=p.vector_length,
        clip=p.clip,
        run_id=bytes.fromhex(p.run_id),
        cohort=[bytes.fromhex(peer) for peer in p.cohort],
        multiplicity=p.multiplicity,
        sources=list(p.sources),
    )


@pytest.mark.parametrize("groups", [2, 4])
def test_ids_and_digests_are_those_of_the_reference(groups: int) -> None:
    levels = Levels(5 * groups, 5, 64)
    top = levels.run()
    for level, networks in enumerate(levels.networks, 1):
        for group, network in enumerate(networks):
            p = network.parameters
            round_id = transcript.group_round_id(bytes.fromhex(RUN), 1, 1, level, group)
            assert p.round_id == round_id.hex()
            digests = (bytes.fromhex(p.plan_digest), bytes.fromhex(p.model_digest))
            assert p.t0 == transcript.t0(round_id, *digests, reference_parameters(p))
    below = levels.networks[0]
    for number, network in enumerate(below):
        finished = as_group(network, number)
        total = network.group_sums[finished.signers[0]]
        digest = transcript.group_sum_digest(total.sums.tolist())
        assert finished.sum_digest == digest.hex()
        ranks = {
            transcript.delegate_rank(bytes.fromhex(finished.round_id), digest, bytes.fromhex(peer)): peer
            for peer in finished.signers
        }
        drawn = [ranks[rank] for rank in sorted(ranks)][: 2 if groups <= 3 else 1]
        spoken = zip(top.parameters.cohort, top.parameters.sources, strict=True)
        assert {peer for peer, source in spoken if source == number} == set(drawn)


def test_check_values_of_the_document() -> None:
    document = (Path(__file__).parents[2] / "spec" / "08-many-cohorts.md").read_text(encoding="utf-8")
    assert compute_group_round_id("00" * 32, 1, 1, 2, 3) in document
    assert group_sum_digest(GroupSum(np.array([1, -1, 65536], np.int32))) in document
