"""Secrets are shown nowhere, and forgotten.

Each fails when its guard is taken out (see mutations.py); docs/security/p2psa-1.md says what each is for.
"""

from __future__ import annotations

import pytest
from rich.pretty import pretty_repr

from protocol.round.actions import Send
from protocol.round.codec import Codec
from protocol.round.machine import Stage
from protocol.round.messages import Abort, Kind, Reveal, Share, Sum
from tests.round.attacks.attacking import inject, observed, reach
from tests.round.network import Network, stream


def test_secrets_are_forgotten_when_the_attempt_ends() -> None:
    network = observed()
    network.start()
    network.run()
    for member in network.members:
        state = member.machine._state
        assert not state.secrets.mask_private
        assert not state.secrets.self_mask_seed
        assert not state.coefficients
        assert not member.machine._advertising._shared


def test_repr_shows_no_secret() -> None:
    network = observed()
    network.start()
    reach(network, Stage.UNMASK)
    for member in network.members:
        machine = member.machine
        parts = (machine, machine._state, machine._state.secrets, machine._sharing, machine._unmasking)
        text = " ".join(repr(part) for part in parts)
        secrets = [member.randomness[:32], member.randomness[32:64], member.randomness[64:96]]
        assert not any(secret.hex() in text or repr(secret) in text for secret in secrets)


@pytest.mark.parametrize(
    "message",
    [Share(b"\x5a" * 81), Reveal(b"\x5a" * 32, ((1, Kind.SEED, b"\x5a" * 32),)), Send(1, b"\x5a" * 99, bulk=False)],
)
def test_messages_with_secrets_are_not_shown_by_rich_either(message) -> None:
    for text in (repr(message), pretty_repr(message)):
        assert text.startswith(type(message).__name__)
        assert "Z" not in text


def test_peer_that_leaves_says_so_and_costs_itself() -> None:
    network = observed()
    network.start()
    reach(network, Stage.COLLECT)
    inject(network, 3, 1, Abort(1))
    assert not network.members[1].machine._state.is_live(3)
    network.run()
    network.observer.end()


def test_randomness_of_two_peers_differs() -> None:
    assert stream("a", 8) != stream("b", 8)


def test_sum_forged_in_the_receivers_own_name_is_refused() -> None:
    """A SUM may be passed on by anybody, so its owner's name says nothing without the signature."""
    network = Network(4)
    network.start()
    victim = network.members[0].machine
    network.run_until(lambda: victim.stage >= Stage.UNMASK)
    plan = network.parameters.chunks(frozenset(range(4)))
    start, end = plan.bounds(0)
    forged = Codec(network.parameters).encode(
        0, Sum(0, bytes(64), memoryview(bytes(network.parameters.packed_bytes(end - start))))
    )
    victim.receive(1, forged, bulk=True, now=network.now)

    network.run()

    assert any("sum" in fault.reason for fault in network.members[0].faults)
    assert len({member.model.tobytes() for member in network.members}) == 1
    assert all(member.completed for member in network.members)
