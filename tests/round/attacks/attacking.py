"""Rounds that are watched, and what a liar does in them."""

from __future__ import annotations

from protocol.round.machine import Stage
from protocol.round.messages import Certificate, Vote
from protocol.secagg.parameters import bits_of
from tests.round.liars import signed
from tests.round.network import Network
from tests.round.observer import Observer

N = 5


def observed(n: int = N, *, liars: frozenset[int] = frozenset(), **options) -> Network:
    network = Network(n, **options)
    network.observer = Observer(network, liars=liars)
    return network


def inject(network: Network, liar: int, to: int, message, *, bulk: bool = False) -> list[str]:
    """Deliver a message made by a liar at once; gives what the receiver reported."""
    member = network.members[to]
    before = len(member.faults)
    member.machine.receive(liar, signed(network, liar, message), bulk=bulk, now=network.now)
    network._do(to)
    return [fault.reason for fault in member.faults[before:]]


def reach(network: Network, stage: Stage) -> None:
    network.run_until(lambda: all(m.machine.stage >= stage for m in network.members if not m.dead))


def leader(network: Network) -> int:
    return network.members[0].machine.leader


def lie(network: Network, liar: int, kind: int, change) -> None:
    """Change every message of one type that a liar sends."""

    def tamper(sender: int, to: int, data: bytes, bulk: bool) -> list[bytes]:  # noqa: FBT001
        if sender != liar or data[1] != kind:
            return [data]
        message = network.members[to].machine._state.post.codec.decode(data, bulk=bulk).message
        return [signed(network, liar, m) for m in change(to, message)]

    network.tamper = tamper


def assert_completed(network: Network, survivors: set[int], among: set[int] | None = None) -> None:
    network.observer.end()
    for index, member in enumerate(network.members):
        if not member.dead and (among is None or index in among):
            assert member.completed is not None, member.failed
            assert member.completed.survivors == frozenset(survivors)


def certificate(network: Network, voters: set[int], survivors: set[int], root: bytes, t2: bytes) -> Certificate:
    vote = Vote(t2, bits_of(survivors), root)
    signatures = tuple(signed(network, voter, vote)[-64:] for voter in sorted(voters))
    return Certificate(t2, bits_of(survivors), root, bits_of(voters), signatures)


def before_certificate(n: int = N) -> tuple[Network, int, bytes]:
    """A network in which everyone collects and nobody has decided on survivors; the victim; T2."""
    network = observed(n)
    network.start(without_update=frozenset({0}))
    reach(network, Stage.COLLECT)
    return network, 1, network.members[1].machine._state.t2
