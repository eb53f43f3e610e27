"""A peer dies between any two of its actions and comes back: no secret is told twice, and the others finish."""

from __future__ import annotations

from functools import cache
from itertools import combinations, product

import pytest

from protocol.round.machine import Stage
from tests.round.crashes import Crash, CrashNetwork


@cache
def undisturbed(n: int, replicas: int) -> CrashNetwork:
    network = CrashNetwork(n, replicas=replicas)
    network.play()
    assert all(member.machine.stage is Stage.DONE for member in network.members)
    return network


def around_records(network: CrashNetwork, peer: int, *, steps: int) -> list[int]:
    """Boundaries before and after what a peer records, and after the first of what it sends then."""
    kinds = network.kinds[peer]
    near = {i + step for i, kind in enumerate(kinds) if kind == "Persist" for step in range(steps)}
    return sorted(at for at in near if at < len(kinds))


def assert_others_completed(network: CrashNetwork, crashes: tuple[Crash, ...]) -> None:
    dead = {crash.peer for crash in crashes}
    others = [member for index, member in enumerate(network.members) if index not in dead]
    assert all(member.completed is not None for member in others), (crashes, [m.failed for m in others])


@pytest.mark.parametrize(("n", "replicas"), [(3, 1), (4, 1), (4, 2), (5, 1)])
def test_crash_between_any_two_actions_costs_the_others_nothing(n: int, replicas: int) -> None:
    """Of three peers all are needed, so there only what must never happen is checked."""
    for peer in range(n):
        for before in range(undisturbed(n, replicas).actions_of[peer]):
            for arrives, noticed in ((True, True), (True, False), (False, True)):
                crash = Crash(peer, before, arrives=arrives, noticed=noticed)
                network = CrashNetwork(n, crash, replicas=replicas)
                network.play()
                assert network.crashed == {peer}
                assert before > 0 or peer not in network.stayed_out
                if n > 3:
                    assert_others_completed(network, (crash,))


@pytest.mark.parametrize("n", [4, 5])
def test_crashes_meet_leaders_owners_and_peers_that_own_nothing(n: int) -> None:
    machine = undisturbed(n, 1).members[0].machine
    owners = {owner for owners in machine._collecting.owners.values() for owner in owners}
    assert owners - {machine.leader}
    assert set(range(n)) - owners - {machine.leader}


@pytest.mark.parametrize(("n", "steps"), [(5, 2), (7, 1)])
def test_two_crashes_around_what_is_recorded_tell_nothing_twice(n: int, steps: int) -> None:
    """Seven peers do without two."""
    whole = undisturbed(n, 1)
    for one, other in combinations(range(n), 2):
        for first, second in product(*(around_records(whole, peer, steps=steps) for peer in (one, other))):
            noticed = (first + second) % 2 == 0
            crashes = Crash(one, first, noticed=noticed), Crash(other, second, noticed=not noticed)
            network = CrashNetwork(n, *crashes)
            network.play()
            if n == 7:
                assert_others_completed(network, crashes)


def test_peer_that_died_before_it_joined_takes_part_in_its_second_life() -> None:
    for peer in range(4):
        network = CrashNetwork(4, Crash(peer, 0))
        network.play()
        assert all(member.completed is not None for member in network.members)
        assert network.members[0].completed.survivors == frozenset(range(4))


def test_peer_that_does_not_remember_joining_is_caught_telling_twice() -> None:
    """The checks above see what the journal prevents."""
    said = set()
    for before in range(1, undisturbed(4, 1).actions_of[0]):
        network = CrashNetwork(4, Crash(0, before, noticed=True), forgetful=True)
        try:
            network.play()
        except AssertionError as error:
            said.add(str(error).split(":", maxsplit=1)[0])
    assert "peer 0 sent two different messages of type 1" in said
