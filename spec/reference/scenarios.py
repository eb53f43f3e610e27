"""The rounds that are written down: who is lost when, and what every peer starts from."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from spec.reference import transcript
from spec.reference.peer import Announcement, Secrets
from spec.reference.quantise import Metrics
from spec.reference.stream import Stream

__all__ = ["PEERS", "SCENARIOS", "Scenario", "announce", "draw_delegate", "draw_secrets", "draw_sum"]

PEERS, PARAMETERS, BUFFERS, TAIL = 4, 29, 2, 6
MAX_EXAMPLES = 64
MULTIPLICITY = 5
"""The most peers whose updates one group's sum holds, where delegates combine such sums."""
STAGES = ("adverts", "shares", "first chunk", "chunks", "vote", "never")


@dataclass(frozen=True)
class Scenario:
    """Peer `gone` is never heard of again after it has sent what `after` names."""

    name: str
    comment: str
    ring_bits: int = 20
    value_bits: int = 16
    replicas: int = 1
    gone: int = -1
    after: str = "never"
    sources: tuple[int, ...] = ()
    """Of delegates (spec 08): the group that each index speaks for."""

    def sends(self, peer: int, stage: str) -> bool:
        """Whether the peer still sends what belongs to `stage`."""
        return peer != self.gone or STAGES.index(stage) <= STAGES.index(self.after)


SCENARIOS = (
    Scenario("no-drop", "Everybody stays."),
    Scenario(
        "drop-before-masking", "Peer 3 is gone after its ADVERT: in the roster, not in K.", gone=3, after="adverts"
    ),
    Scenario(
        "drop-after-masking",
        "Peer 3 is gone after its COMMIT and its CHUNK 0: in K, not in U. Its mask key is recovered.",
        gone=3,
        after="first chunk",
    ),
    Scenario(
        "owner-reassigned",
        "Peer 1, owner of chunk 1, is gone after all its CHUNKs: the chunk is ASSIGNed to peer 2 and sent again.",
        ring_bits=24,
        gone=1,
        after="chunks",
    ),
    Scenario(
        "owner-lost-with-replica",
        "Two replicas. Peer 1 is gone after its VOTE: in U. Its seed is recovered, the other owner sums chunk 1.",
        ring_bits=32,
        value_bits=24,
        replicas=2,
        gone=1,
        after="vote",
    ),
    Scenario(
        "chunk-lost",
        "One replica. Peer 0 is gone after its VOTE: in U, and nobody holds its part of chunk 0, which counts zero.",
        ring_bits=16,
        value_bits=12,
        gone=0,
        after="vote",
    ),
    Scenario(
        "weight-chunk-lost",
        "As chunk-lost with peer 1, whose chunk holds the weight: W is |U|·L.",
        gone=1,
        after="vote",
    ),
    Scenario(
        "combining",
        "Two groups send two delegates each. Peer 0 is gone after its ADVERT: peer 2 puts the sum of group 4 in.",
        ring_bits=32,
        gone=0,
        after="adverts",
        sources=(4, 7, 4, 7),
    ),
    Scenario(
        "combining-group-lost",
        "Peer 1 is gone after its COMMIT and its CHUNK 0: the sum of group 7 goes with it, though peer 3 is in U.",
        ring_bits=32,
        gone=1,
        after="first chunk",
        sources=(4, 7, 4, 7),
    ),
    Scenario(
        "combining-weight-lost",
        "Peer 1 is gone after its VOTE, and with it the chunk that holds the weight: W is c(U)·M·L.",
        ring_bits=32,
        gone=1,
        after="vote",
        sources=(4, 7, 7, 4),
    ),
)


def draw_delegate(stream: Stream, seed: bytes, total: list[int], t: int) -> Secrets:
    """Secrets of a delegate, whose group's sum is `total`."""
    return Secrets(
        identity_seed=seed,
        fingerprint=stream.take(32),
        mask_private=stream.take(32),
        enc_private=stream.take(32),
        seed=stream.take(32),
        coefficients=stream.take(2 * 32 * (t - 1)),
        group_sum=total,
    )


def draw_sum(scenario: Scenario, group: int) -> list[int]:
    """A group's sum: of the whole range, but for a weight above zero."""
    stream = Stream(f"round/{scenario.name}/group/{group}")
    limit = MULTIPLICITY * ((1 << (scenario.value_bits - 1)) - 1)
    total = [stream.below(2 * limit + 1) - limit for _ in range(PARAMETERS + BUFFERS + TAIL)]
    total[PARAMETERS + BUFFERS] = 1 + stream.below(limit)
    return total


def draw_secrets(stream: Stream, seed: bytes, t: int) -> Secrets:
    """Secrets of a peer with an update of its own."""
    update = [(stream.below(2**24) - 2**23) / 2**23 * 0.02 for _ in range(PARAMETERS + BUFFERS)]
    held_out = Metrics(8 + stream.below(8), [stream.below(300) / 128, stream.below(65) / 64], [4.0, 1.0])
    trained = Metrics(32 + stream.below(32), [stream.below(300) / 128, stream.below(65) / 64], [4.0, 1.0])
    return Secrets(
        identity_seed=seed,
        fingerprint=stream.take(32),
        mask_private=stream.take(32),
        enc_private=stream.take(32),
        seed=stream.take(32),
        coefficients=stream.take(2 * 32 * (t - 1)),
        update=struct.pack(f"<{len(update)}f", *update),
        groups=[trained, held_out],
        randoms=[stream.below(2**24) for _ in range(PARAMETERS + BUFFERS + TAIL)],
    )


def announce(scenario: Scenario, cohort: list[bytes]) -> Announcement:
    """An announcement whose first leader stays: the round number is the first that gives one."""
    stream = Stream(f"round/{scenario.name}")
    old = [(stream.below(2**24) - 2**23) / 2**23 for _ in range(PARAMETERS + BUFFERS)]
    model = struct.pack(f"<{len(old)}f", *old)
    parameters = transcript.Parameters(
        min_survivors=3,
        ring_bits=scenario.ring_bits,
        value_bits=scenario.value_bits,
        replicas=scenario.replicas,
        elements=PARAMETERS + BUFFERS + TAIL,
        clip=0.0125,
        run_id=stream.take(32),
        cohort=cohort,
        multiplicity=MULTIPLICITY if scenario.sources else 1,
        sources=list(scenario.sources),
    )
    place = (2, 0) if scenario.sources else None
    plan = stream.take(32)
    number = 1
    while True:
        theta, buffers = model[: 4 * PARAMETERS], model[4 * PARAMETERS :]
        found = Announcement(parameters, number, 1, plan, theta, buffers, MAX_EXAMPLES, place)
        if transcript.leader(found.t0, 0, PEERS) != scenario.gone:
            return found
        number += 1
